#!/bin/sh
# Hook of mmdebstrap: fetches the kernel with the new root's own apt, so that its signature is
# checked, and unpacks it beside the root file system. Nothing of it is installed or run.
# $1 is the new root; CASEMATE_KERNELS names the packages to try, in order.
set -eu
echo "casemate: fetching the kernel"

APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
export APT_CONFIG
umask 022
mkdir "$1/.casemate" "$1/.casemate/kernel"
cd "$1/.casemate"

# The lists' own dates, as their publishers signed them; the newest is the image's serial.
newest=0
for list in "$1"/var/lib/apt/lists/*Release; do
    [ -e "$list" ] || continue
    date=$(sed -n 's/^Date: //p;/^Date:/q' "$list")
    seconds=$(date --utc --date="$date" +%s 2>/dev/null) || continue
    [ "$seconds" -le "$newest" ] || newest=$seconds
done
echo "$newest" >archive-date

wanted=
for candidate in $CASEMATE_KERNELS; do
    if apt-cache show "$candidate" >/dev/null 2>&1; then
        wanted=$candidate
        break
    fi
done
if [ -z "$wanted" ]; then
    echo "casemate: no such kernel package: $CASEMATE_KERNELS" >&2
    exit 1
fi

# From a meta-package to the versioned one, and to those that one may be split into.
packages=
while [ -n "$wanted" ]; do
    next=
    for package in $wanted; do
        case " $packages " in
        *" $package "*) continue ;;
        esac
        packages="$packages $package"
        next="$next $(apt-cache depends --important "$package" |
            sed -n -E 's/^ *(Pre)?Depends: (linux-(image|binary|modules)-[0-9].*)$/\2/p')"
    done
    wanted=$(echo $next)
done

apt-get --quiet=2 -o APT::Sandbox::User=root download $packages
for archive in *.deb; do
    dpkg-deb -x "$archive" kernel
    dpkg-deb --showformat '${Package} ${Version} ${Architecture}\n' --show "$archive" \
        >>kernel-packages
    rm "$archive"
done
