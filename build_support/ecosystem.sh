#!/bin/sh
# Install programs that were written for AsyncSSH, and their test-suites, in an environment where `asyncssh` is ours:
#     build_support/ecosystem.sh PYTHON FOLDER
set -eu

python=$1
folder=$2
here=$(cd "$(dirname "$0")/.." && pwd)

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"

# AsyncSSH itself is installed, as pip wants it for the others, but never imported.
"$folder/bin/pip" install --quiet distributed sshfs nw-ssh sshexpect asyncsshscript mock-ssh-server pytest \
    pytest-asyncio 'cryptography>=48' 'pynacl>=1.5' 'bcrypt>=4.0'

rm -rf "$folder/sources"
"$folder/bin/pip" download --quiet --no-deps --no-binary :all: --dest "$folder/sources" sshfs
for archive in "$folder"/sources/*.tar.gz; do
    tar -xzf "$archive" -C "$folder/sources"
done
rm "$folder"/sources/*.tar.gz
# Its key came out readable for all, which we refuse and AsyncSSH takes.
chmod 600 "$folder"/sources/sshfs-*/tests/static/user.key

site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$here" > "$site/ssh_fast_tree.pth"
cat > "$site/zz_ssh_fast_alias.pth" <<'PTH'
import os; os.environ.get('SSH_FAST_AS_ASYNCSSH') and __import__('ssh_fast').install_as_asyncssh()
PTH
touch "$folder/.ready"
