"""The releases of Amazon reviews: their pages, where their files stand, and their terms."""

from __future__ import annotations

_2014 = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_2018 = "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2/"
_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/"
PAGES = {
    2014: "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    2018: "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    2023: "https://amazon-reviews-2023.github.io/",
}
# Release -> folders of reviews, of 5-core reviews, of metadata.
_FOLDERS = {
    2014: (_2014, _2014, _2014),
    2018: (_2018 + "categoryFiles/", _2018 + "categoryFilesSmall/", _2018 + "metaFiles2/"),
    2023: (
        _2023 + "raw/review_categories/",
        _2023 + "benchmark/5core/rating_only/",
        _2023 + "raw/meta_categories/",
    ),
}
LICENCES = {
    2014: "No licence stated. Research use; cite He and McAuley (WWW 2016) and McAuley et al. "
    "(SIGIR 2015).",
    2018: "No licence stated. Research use; cite Ni, Li and McAuley (EMNLP 2019).",
    2023: "See the page of the release. Cite Hou et al., Bridging Language and Items for Retrieval "
    "and Recommendation (arXiv:2403.03952).",
}


def address(year: int, name: str) -> str:
    """Return where the release of ``year`` keeps the file ``name``."""
    everything, core, meta = _FOLDERS[year]
    if name.startswith("meta_"):
        return meta + name
    is_core = name.removesuffix(".json.gz").endswith("_5") or name.endswith(".csv.gz")
    return (core if is_core else everything) + name
