"""Wrong keys, counted by address: whoever tries key after key gets each answer later."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

_FREE: Final = 10
"""Wrong keys in a row that are answered at once: people mistype."""
_FIRST_SECONDS: Final = 0.1
_MAX_SECONDS: Final = 5.0
_MAX_ADDRESSES: Final = 4096
_MAX_DOUBLINGS: Final = 16


class WrongKeys:
    """Counts the wrong keys of each address, of the 4,096 that last sent one."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def delay(self, address: str) -> float:
        """Count a wrong key, and return the seconds that its answer has to wait."""
        place = _network(address)
        count = self._counts.pop(place, 0) + 1
        self._counts[place] = count
        if len(self._counts) > _MAX_ADDRESSES:
            self._counts.popitem(last=False)
        if count <= _FREE:
            return 0.0
        doublings = min(count - _FREE - 1, _MAX_DOUBLINGS)
        return float(min(_MAX_SECONDS, _FIRST_SECONDS * 2**doublings))

    def forget(self, address: str) -> None:
        """End the row of an address that sent a right key."""
        if self._counts:
            self._counts.pop(_network(address), None)


def _network(address: str) -> str:
    """Return an address; of IPv6 the /64 network, all of which one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket, or a proxy's name
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    # A socket for both kinds has IPv4 addresses mapped into one network of IPv6.
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else f"{int(parsed) >> 64:x}"
