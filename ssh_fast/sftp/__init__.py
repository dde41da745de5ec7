"""The SSH File Transfer Protocol, version 3 (filexfer-02) with OpenSSH's extensions, client and server."""
