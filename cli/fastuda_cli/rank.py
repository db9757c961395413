"""A command as one of several ranks: who speaks, who is silent, and how torchrun learns why one ended."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import time
from pathlib import Path

from fastuda.distributed.place import Place

_PR_SET_PDEATHSIG = 1
_SECONDS_TO_BE_ENDED = 15.0
"""For torchrun to see that another rank is gone, and to end this one with it."""


def take_part(place: Place) -> None:
    """Stop, all saved, when torchrun itself is killed, and leave the talking to the first rank.

    Others still tell of the files that they alone read, with their rank.
    """
    if place.launched:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if place.rank == 0:
        return
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(f"{place.told}: %(message)s"))
    logging.getLogger("fastuda").setLevel(logging.ERROR)
    for reader in ("fastuda.data.loading", "fastuda.data.packing.mend"):
        logging.getLogger(reader).setLevel(logging.WARNING)


def leave_word(text: str) -> bool:
    """Give torchrun the reason why this rank ends, which it tells with rank and host; False where nobody asks."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    more = {"py_callstack": text, "timestamp": str(int(time.time()))}
    Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": more}}))
    return True


def be_ended() -> None:
    """Wait for torchrun to end this rank, which lost another: the one that is gone is to be told of, not this one."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_SECONDS_TO_BE_ENDED)
