"""The command ``serve``."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from recbole_mm import compat
from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.serve.pack import PACK, whole_pack
from recbole_mm.serve.recommender import Recommender
from recbole_mm.serve.web.app import Limits, make_app

# Seconds given to requests under way when the service is told to end.
_GRACE = 10


def serve_command(args: argparse.Namespace) -> int:
    """Serve a pack until told to end."""
    compat.quiet_warnings()
    if not (whole_pack(Path(args.pack)) / PACK).is_file():
        raise CheckpointError(
            f"{args.pack} is no pack. Make one: recbole-mm pack --run=FOLDER --output={args.pack}"
        )
    limits = Limits(most_waiting=args.most_waiting, rate=args.rate)
    listening = _listen(args.host, args.port)
    with listening:
        recommender = Recommender.load(args.pack, args.device)
        # The first question should not pay for what is computed once.
        recommender.recommend([[recommender.items.tokens[-1]]], 1)
        config, address = recommender.config, _address(listening)
        print(f"{config['model']} on {config['dataset']}: {address} (docs: {address}/docs)")
        sys.stdout.flush()
        settings = uvicorn.Config(
            make_app(recommender, limits), log_level="warning", access_log=False,
            timeout_graceful_shutdown=_GRACE, lifespan="on",
        )  # fmt: skip
        try:
            uvicorn.Server(settings).run(sockets=[listening])
        except KeyboardInterrupt:
            print("ended; requests under way were answered", file=sys.stderr)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket first: a taken port is answered before the model is restored."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio sends at once (TCP_NODELAY); else answers wait 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
        return listening
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host}:{port} ({reason}). Free the port, or name another --port "
            "(0 takes any free one) or --host."
        ) from error


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
