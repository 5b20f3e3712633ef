#!/bin/sh
# Builds the site into ./artifacts: an archive, its checksum and its version.
set -eu

cd "$(dirname "$0")/.."

commit=${CI_COMMIT_SHA:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
version=1.0.${CI_PIPELINE_IID:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "Building version $version of commit $commit"
mkdir -p "$work/site"
for file in site/*; do
  sed -e "s/@VERSION@/$version/g" -e "s/@COMMIT@/$commit/g" "$file" >"$work/$file"
  echo "  $file: $(wc -c <"$work/$file") bytes"
done

rm -rf artifacts
mkdir artifacts
archive=site-$version.tar.gz
tar -C "$work" -czf "artifacts/$archive" site
echo "$version" >artifacts/version
(cd artifacts && sha256sum "$archive" >"$archive.sha256")
echo "Wrote artifacts/$archive ($(wc -c <"artifacts/$archive") bytes)"
