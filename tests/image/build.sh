#!/usr/bin/env bash
# Builds the image of the container tests, and prints its name. It has PostgreSQL and the distribution registry, from
# Debian packages only, and from the sources of this machine's apt. Its name contains a hash of the recipe, so that an
# existing image is used again.
set -euo pipefail
cd "$(dirname "$0")"

packages=postgresql,docker-registry
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
recipe=$(cat build.sh entrypoint | sha256sum)
image="rekindle-test:$release-${recipe:0:12}"
# Only one of several parallel tests builds the image; the others wait.
exec 9> "${TMPDIR:-/tmp}/rekindle-test-image.lock"
flock 9
if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit
fi

{
  [ "$(id -u)" = 0 ] || { echo "tests/image/build.sh: only root can make a root file system; run it as root once"; exit 1; }
  command -v mmdebstrap >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends mmdebstrap; }
  # apt's package lists may be older than the mirror's packages.
  sources() {
    # shellcheck disable=SC2016  # apt reads these, not the shell
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
      awk '$4 == "Debian" && $3 == "main" && !seen[$0]++ { print "deb", $1, $2, $3 }'
  }
  [ -n "$(sources)" ] || apt-get update -q
  directory=$(mktemp -d)
  trap 'rm -rf "$directory"' EXIT
  # Tests need no documentation, no translations, and no JIT compiler for Postgres.
  # shellcheck disable=SC2016 # mmdebstrap passes the directory to its hooks as $1.
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
