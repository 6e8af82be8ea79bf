"""Messages between a client and an application, whatever carries them."""
