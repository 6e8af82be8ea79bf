"""What the processes of the bundled server share: the socket that they accept on."""
