"""``recbole_mm encode`` with small chunks that take their time; each process notes its number."""

import os
import sys
import time
from functools import partial
from pathlib import Path

from recbole_mm.cli import main
from recbole_mm.encode import cli
from recbole_mm.encode.text.tfidf import TfidfEncoder

if __name__ == "__main__":
    Path(f"pid-{os.environ.get('RANK')}").write_text(str(os.getpid()))
    encode = TfidfEncoder.encode

    def slowly(encoder: TfidfEncoder, texts: list[str]) -> object:
        """Encode after a while."""
        time.sleep(0.5 if "RANK" in os.environ else 0)
        with open("made", "a") as stream:
            stream.write("chunk\n")
        return encode(encoder, texts)

    TfidfEncoder.encode = slowly  # type: ignore[assignment]
    cli.encode_text = partial(cli.encode_text, chunk_size=16)  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
