#!/bin/sh
# Hook of mmdebstrap: makes the installed packages a root file system for any compartment.
# $1 is the new root. Host name, resolver and machine id are the agent's to set at each boot.
set -eu
cd "$1"

chroot . useradd --create-home --uid 1000 --user-group --shell /bin/bash user
if [ -x usr/bin/vim.tiny ]; then
    chroot . update-alternatives --quiet --install /usr/bin/vim vim /usr/bin/vim.tiny 10
fi

for folder in dev home mnt proc run sys tmp; do
    mkdir -p "$folder"
done
rm -f etc/machine-id etc/hostname etc/resolv.conf
rm -f var/lib/dbus/machine-id
for file in etc/machine-id etc/hostname etc/resolv.conf; do
    : >"$file"
    chmod 644 "$file"
done

# What only tells when and how this was built.
rm -rf var/log/apt var/cache/debconf/*-old var/cache/ldconfig/aux-cache var/lib/dpkg/*-old
rm -f var/log/alternatives.log var/log/bootstrap.log var/log/dpkg.log
rm -f etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid-
