"""Settings of the peers; docs/peers.md explains every switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.model.mmsbr.settings import Use
from recbole_mm.model.settings import ModelSettings, TrainedSettings, fixed, option, require_heads
from recbole_mm.model.srim.settings import ReleasedGraphSettings

V = TypeVar("V", bound="VectorSettings")
# Taken where modalities are not named, as far as there are vectors.
USUAL = ("text", "image")


def _each_left_out(kinds: Sequence[str]) -> dict[str, dict[str, Plain]]:
    """Return the keys that leave each modality out of a model that cannot be without any."""
    if len(kinds) < 2:
        return {}
    return {name: {"modalities": [kind for kind in kinds if kind != name]} for name in kinds}


@dataclass(frozen=True)
class VectorSettings(ModelSettings):
    """What SASRecF, GRU4RecF and FDSA can take beside the keys that RecBole gives them."""

    modalities: tuple[str, ...] = option(
        (),
        "Item vectors that are features beside the columns of selected_features, such as "
        "[text, image]; [] leaves the model as RecBole has it.",
    )

    @classmethod
    def of(cls: type[V], config: Mapping[str, object]) -> V:
        """Read the settings; see the base class.

        Raises
        ------
        ConfigError
            Neither columns nor modalities are features.
        """
        found = super().of(config)
        if not found.modalities and not config["selected_features"]:
            raise ConfigError(
                f"{config['model']} was given no item feature. Expected columns in "
                "--selected_features, vectors in --modalities (such as --modalities='[text]'), or "
                "both."
            )
        return found

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return self.modalities

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        kinds = self.modalities
        return {name: {"modalities": [k for k in kinds if k != name]} for name in kinds}


@dataclass(frozen=True)
class StockTransformerSettings(ModelSettings):
    """Keys of RecBole's Transformers, by RecBole's names."""

    n_layers: int = option(2, "Layers of the Transformer.", min=1, max=1000)
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    hidden_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward layers.", min=1)
    hidden_dropout_prob: float = option(0.5, "Share of values dropped.", min=0, below=1)
    attn_dropout_prob: float = option(0.5, "Share of attention weights dropped.", min=0, below=1)
    hidden_act: Literal["gelu", "relu", "swish", "tanh", "sigmoid"] = option(
        "gelu", "Activation of the feed-forward layers."
    )
    layer_norm_eps: float = option(1e-12, "Added to the variance in layer normalisation.", above=0)
    initializer_range: float = option(
        0.02,
        "Standard deviation of the first weights, and root mean square of what vectors start with.",
        above=0,
    )
    loss_type: Literal["CE"] = option("CE", "Cross-entropy over all items.")
    modality: str = option("text", "Vectors whose principal components the item vectors start as.")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return (self.modality,)


@dataclass(frozen=True)
class LLM2SASRecSettings(StockTransformerSettings):
    """Settings of `LLM2SASRec`."""


@dataclass(frozen=True)
class LLM2BERT4RecSettings(StockTransformerSettings):
    """Settings of `LLM2BERT4Rec`."""

    hidden_dropout_prob: float = option(0.2, "Share of values dropped.", min=0, below=1)
    attn_dropout_prob: float = option(0.2, "Share of attention weights dropped.", min=0, below=1)
    mask_ratio: float = option(0.2, "Share of items masked in training.", above=0, below=1)
    ft_ratio: float = option(0.5, "Share of rows whose last item is masked.", min=0, max=1)
    transform: Literal["mask_itemseq"] = option(
        "mask_itemseq", "RecBole's preparation of a batch: items of the history are masked."
    )


@dataclass(frozen=True)
class DIMOSettings(ReleasedGraphSettings):
    """Settings of `DIMO`: what it shares with SRIM, and weights of its own."""

    w_co: float = option(1.0, "Weight of the co-occurrence loss; 0 switches it off.", min=0)
    w_proxy: float = option(0.02, "Weight of the proxy loss; 0 switches it off.", min=0)
    w_counterfactual: float = option(
        0.02, "Weight of the counterfactual loss; 0 switches it off.", min=0
    )
    attention: Literal["full"] = fixed("full")
    # SRIM's own losses.
    w_align: float = fixed(0.0)
    w_joint: float = fixed(0.0)


@dataclass(frozen=True)
class OfficialDIMOSettings(DIMOSettings):
    """Settings of `OfficialDIMO`: sizes, weights and dropouts are left to choose."""

    train_own_items: Literal["keep"] = fixed("keep")
    branches: Literal["both"] = fixed("both")
    content: Literal["random"] = fixed("random")
    # The released model has no use for these.
    modalities: tuple[str, ...] = fixed(())
    feature_norm: Literal["none"] = fixed("none")
    feature_pca: int = fixed(0)
    co_samples: int = fixed(0)


@dataclass(frozen=True)
class CoHHNSettings(TrainedSettings):
    """Settings of `CoHHN`."""

    # ---- What is read of the items ----
    use_price: Use = fixed(True)
    use_category: Use = option(
        "auto",
        "Categories of the .item file: if they are there, must be there, or not at all; without "
        "them all items are of one.",
    )
    price_field: str | None = option(None, "Item column of the price; ~ takes price.")
    category_field: str | None = option(
        None,
        "Item column of the category; ~ takes category or categories. Of several entries the last "
        "counts.",
    )
    price_levels: int = option(
        50,
        "Steps between the lowest and the highest price of a category; there is one more level.",
        min=1,
    )
    # ---- Graph ----
    embedding_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    n_layers: int = option(2, "Layers of the graph.", min=1, max=1000)
    gate_dropout_prob: float = option(
        0.5, "Share of values dropped behind the gates of the graph.", min=0, below=1
    )
    neighbour_dropout_prob: float = option(
        0.7, "Share of values dropped of what prices and categories hear.", min=0, below=1
    )
    # ---- Sessions ----
    n_heads: int = option(4, "Heads of the attention over prices.", min=1)
    attn_dropout_prob: float = option(0.2, "Share of its weights dropped.", min=0, below=1)

    def __post_init__(self) -> None:
        require_heads(self.n_heads, self.embedding_size, "embedding_size")


@dataclass(frozen=True)
class MISSRecSettings(TrainedSettings):
    """Settings of `MISSRec`."""

    # ---- Item vectors ----
    modalities: tuple[str, ...] | None = option(
        None,
        "Vectors that describe an item; ~ takes text and image as far as there are vectors.",
    )
    item_ids: bool = option(
        True,
        "Add a vector learned by item id (the paper's transductive setting); false leaves what an "
        "item is described by alone (inductive).",
    )
    fusion: Literal["dynamic", "static"] = option(
        "dynamic",
        "How the cosines of an item's modalities are summed: with weights by session and item, or "
        "with equal ones.",
    )
    # ---- Sessions ----
    interest_ratio: float = option(
        0.1, "Interests per vector of a training item, modalities together.", above=0, max=1
    )
    hidden_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward layers.", min=1)
    n_layers: int = option(
        1, "Layers over the interests, and as many over the items.", min=1, max=1000
    )
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    hidden_dropout_prob: float = option(
        0.5, "Share of values, and of attention weights, dropped.", min=0, below=1
    )
    temperature: float = option(0.07, "Cosines of session and item are divided by it.", above=0)
    diversity_weight: float = option(
        0.05, "Weight of what keeps a session's interests apart from each other.", min=0
    )

    def __post_init__(self) -> None:
        if self.modalities == ():
            raise ConfigError(
                "modalities = [] leaves MISSRec no interests; expected at least one, such as [text]"
            )
        require_heads(self.n_heads, self.hidden_size, "hidden_size")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        if self.modalities is not None:
            return self.modalities
        # With neither there, the missing text is named.
        return tuple(name for name in USUAL if name in available) or USUAL[:1]

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        return _each_left_out(self.feature_files(available))


@dataclass(frozen=True)
class UniSRecSettings(TrainedSettings):
    """Settings of `UniSRec`."""

    # ---- Item vectors ----
    modalities: tuple[str, ...] = option(
        ("text",), "Vectors that describe an item, side by side where there are several."
    )
    item_ids: bool = option(
        True,
        "Add a vector learned by item id to the adapted one (the paper's transductive setting); "
        "false leaves what an item is described by alone (inductive).",
    )
    n_experts: int = option(8, "Parametric whitenings that the adaptor mixes.", min=1)
    adaptor_dropout_prob: float = option(
        0.2, "Share of the description's numbers dropped before they are whitened.", min=0, below=1
    )
    # ---- Sessions ----
    hidden_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward layers.", min=1)
    n_layers: int = option(2, "Layers of the Transformer.", min=1, max=1000)
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    hidden_dropout_prob: float = option(0.5, "Share of values dropped.", min=0, below=1)
    attn_dropout_prob: float = option(0.5, "Share of attention weights dropped.", min=0, below=1)
    temperature: float = option(0.07, "Cosines of session and item are divided by it.", above=0)
    # ---- Pre-training ----
    pretrained: str | None = option(
        None,
        "Folder that `recbole-mm pretrain` wrote: adaptor, positions and Transformer start as they "
        "were left there; ~ starts from scratch.",
    )
    freeze_encoder: bool = option(
        True, "With pretrained: positions and Transformer stay as they are, as in the paper."
    )

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ConfigError(
                "modalities = [] leaves UniSRec nothing to adapt; expected at least one, such as "
                "[text]"
            )
        require_heads(self.n_heads, self.hidden_size, "hidden_size")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return self.modalities

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        return _each_left_out(self.modalities)


@dataclass(frozen=True)
class ContrastiveUniSRecSettings(UniSRecSettings):
    """Settings of `ContrastiveUniSRec`, the preset ``pretrain``."""

    train_own_items: Literal["keep"] = fixed("keep")
    item_ids: bool = fixed(False)
    pretrained: str | None = fixed(None)
    freeze_encoder: bool = fixed(False)
    item_drop_ratio: float = option(
        0.2, "Share of a session's items dropped in its second view.", min=0, below=1
    )
    sequence_weight: float = option(
        0.001, "Weight of the task that tells a session's second view from others'.", min=0
    )
