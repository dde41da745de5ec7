"""The SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02), client and server, with OpenSSH's extensions."""
