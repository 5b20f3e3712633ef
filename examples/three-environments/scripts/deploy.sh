#!/bin/sh
# "Deploys" what build.sh wrote: checks the archive and unpacks it under DEPLOY_ROOT.
set -eu

cd "$(dirname "$0")/.."

environment=${1:?"usage: deploy.sh ENVIRONMENT"}
root=${DEPLOY_ROOT:-./deployed/$environment}

if [ ! -f artifacts/version ]; then
  echo "There is nothing to deploy: artifacts/version is missing. Did the build job run?" >&2
  exit 1
fi
version=$(cat artifacts/version)
archive=site-$version.tar.gz

echo "Checking artifacts/$archive"
(cd artifacts && sha256sum -c "$archive.sha256")

release=$root/releases/$version
rm -rf "$release"
mkdir -p "$release"
tar -C "$release" --strip-components=1 -xzf "artifacts/$archive"
# One step for whoever reads the site: it is the old release or the new one, never half of each.
ln -sfn "releases/$version" "$root/current"

grep -q "Version $version" "$root/current/index.html"
echo "Version $version is deployed to $environment in $root:"
for file in "$root"/current/*; do
  echo "  $(basename "$file")"
done
