#!/bin/sh
# By hand: bundles the suite smoke, and replicates it from the archive alone where there is no
# network. Takes some minutes and 15 GB, and needs a commit without changes and unshare.
set -eu
cd "$(dirname "$0")/../.."
make bundle SUITE=smoke
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp dist/treelora-smoke-"$(git rev-parse --short=12 HEAD)".tar* "$folder"
cd "$folder"
sha256sum --check ./*.sha256
tar xf ./*.tar
rm ./*.tar
cd treelora-smoke-*/
env --ignore-environment PATH="$PATH" HOME="$folder" \
    unshare --map-root-user --net make slurm replicate SUITE=smoke
