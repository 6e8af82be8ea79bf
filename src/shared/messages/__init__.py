"""Messages between a client and an application, whatever carries them."""

from ..errors import need_extra

need_extra("server", "the bundled protocol", ("msgspec",))
