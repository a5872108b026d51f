#!/usr/bin/env bash
# Makes the image that the container tests run: PostgreSQL and the distribution registry, from Debian packages alone,
# out of the sources that this machine's own apt uses. Prints its name. The name tells what it was made from, so it is
# made once and found again.
set -euo pipefail
cd "$(dirname "$0")"

packages=postgresql,docker-registry
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
recipe=$(cat build.sh entrypoint | sha256sum)
image="rekindle-test:$release-${recipe:0:12}"
# Tests that run side by side wait for the one that makes it.
exec 9> "${TMPDIR:-/tmp}/rekindle-test-image.lock"
flock 9
if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit
fi

{
  [ "$(id -u)" = 0 ] || { echo "tests/image/build.sh: only root can make a root file system; run it as root once"; exit 1; }
  command -v mmdebstrap >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends mmdebstrap; }
  # The lists of packages may be older than what the mirror still has.
  sources() {
    # shellcheck disable=SC2016  # apt reads these, not the shell
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
      awk '$4 == "Debian" && $3 == "main" && !seen[$0]++ { print "deb", $1, $2, $3 }'
  }
  [ -n "$(sources)" ] || apt-get update -q
  directory=$(mktemp -d)
  trap 'rm -rf "$directory"' EXIT
  # Left out is what nobody reads in a test: documentation, translations, and the compiler that Postgres does without.
  # shellcheck disable=SC2016 # mmdebstrap gives its hooks the directory as $1.
  sources | mmdebstrap --mode=root --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
    --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' --dpkgopt='path-exclude=/usr/lib/*/libz3*' \
    --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/llvmjit*' \
    --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*' \
    --essential-hook='mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook='install -m 0755 entrypoint "$1/usr/local/bin/entrypoint"' \
    --customize-hook='chroot "$1" install -d -o postgres -g postgres /var/lib/postgresql/data /var/lib/postgresql/tablespace /run/postgresql' \
    --skip=cleanup/run \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
    "$release" "$directory/root.tar" -
  docker import --change 'ENTRYPOINT ["/usr/local/bin/entrypoint"]' "$directory/root.tar" "$image"
} >&2
echo "$image"
