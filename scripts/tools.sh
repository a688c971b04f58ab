#!/usr/bin/env bash
# Gets the programs that building, testing and the demo need.
#
#   scripts/tools.sh consul etcd redis-server ...
#
# consul, etcd and etcdctl end up in bin/: as a link where PATH has a good
# enough version, else built from the nested modules beside this script, whose
# go.sum pins every byte. oidc-provider is a program of this repository: built
# from scripts/tools/oidc, again whenever that changes. The rest (cc, curl,
# redis-server, nginx, haproxy, wrk, h2load) comes from apt or brew when it is
# missing. What is there already is left alone.
#
# Runs on the bash 3.2 that macOS ships.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/bin

say() { printf '%s\n' "tools: $*" >&2; }
die() { say "$*"; exit 1; }

# at_least WANT HAVE: is version HAVE the same as WANT or later?
at_least() {
    awk -v want="$1" -v have="$2" 'BEGIN {
        n = split(want, w, "."); split(have, h, ".")
        for (i = 1; i <= n; i++) if (h[i] + 0 != w[i] + 0) exit !(h[i] + 0 > w[i] + 0)
        exit 0
    }'
}

# version_of PROGRAM PATH: the dotted version that the program tells.
version_of() {
    case $1 in
    consul) "$2" version ;;
    etcd) "$2" --version ;;
    etcdctl) ETCDCTL_API=3 "$2" version ;;
    esac 2>/dev/null | sed -n 's/[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1
}

# pinned MODULE DIR: the version of a module that a nested go.mod pins.
pinned() {
    awk -v module="$1" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module && $2 ~ /^v/ { print substr($2, 2); exit }' "$2/go.mod"
}

# build PROGRAM PACKAGE DIR: builds a program of a nested module into bin/ and
# shows how far it is, for the first build of Consul takes minutes.
build() {
    local program=$1 package=$2 dir=$3 log new pid start=$SECONDS shown=-10 left='\n' every=10 now
    log=$(mktemp "${TMPDIR:-/tmp}/sluice-build.XXXXXX")
    new=$bin/.$program.$$
    if [ -t 2 ]; then left='\r' every=1; fi
    (cd "$dir" && exec go build -v -mod=readonly -o "$new" "$package") >"$log" 2>&1 &
    pid=$!
    # A job of a script does not get the terminal's Ctrl-C: pass it on.
    trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -f "$log" "$new"; exit 130' INT TERM HUP
    while kill -0 "$pid" 2>/dev/null; do
        now=$((SECONDS - start))
        if [ $((now - shown)) -ge "$every" ]; then
            printf "tools: building %s: %d modules downloaded, %d packages compiled, %d s$left" "$program" \
                "$(grep -c '^go: downloading' "$log" || true)" "$(grep -vc '^go: ' "$log" || true)" "$now" >&2
            shown=$now
        fi
        sleep 0.2
    done
    trap - INT TERM HUP
    if [ "$left" = '\r' ]; then printf '\n' >&2; fi
    if ! wait "$pid"; then
        say "building $program failed; the end of its log:"
        tail -n 30 "$log" >&2
        rm -f "$log" "$new"
        exit 1
    fi
    mv -f "$new" "$bin/$program"
    rm -f "$log"
    say "built bin/$program in $((SECONDS - start)) s"
}

# built PROGRAM MINIMUM PACKAGE MODULE DIR: makes bin/PROGRAM stand.
built() {
    local program=$1 minimum=$2 package=$3 module=$4 dir=$5 want found
    want=$(pinned "$module" "$dir")
    [ -n "$want" ] || die "$dir/go.mod pins no $module"
    mkdir -p "$bin"
    # A version is its own stamp: built once, and again when go.mod moves on.
    if [ -x "$bin/$program" ] && [ ! -L "$bin/$program" ] && [ "$(version_of "$program" "$bin/$program")" = "$want" ]; then
        return
    fi
    found=$(type -P "$program" || true)
    if [ -n "$found" ] && [ "${found%/*}" != "$bin" ] && at_least "$minimum" "$(version_of "$program" "$found")"; then
        [ "$(readlink "$bin/$program" || true)" = "$found" ] || say "bin/$program is $found"
        ln -sf "$found" "$bin/$program"
        return
    fi
    rm -f "$bin/$program"
    build "$program" "$package" "$dir"
}

# own PROGRAM DIR: builds a nested module of this repository into bin/.
own() {
    mkdir -p "$bin"
    [ -x "$bin/$1" ] && [ -z "$(find "$2" -newer "$bin/$1" -print)" ] || build "$1" . "$2"
}

# packaged PROGRAM APT-PACKAGES BREW-PACKAGE: installs what PATH lacks.
packaged() {
    local program=$1 apt=$2 brew=$3 as=
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    if PATH=$PATH:/usr/sbin:/usr/local/sbin type -P "$program" >/dev/null; then return; fi
    if command -v apt-get >/dev/null; then
        if [ "$(id -u)" -ne 0 ]; then
            command -v sudo >/dev/null || die "$program is missing; as root run: apt-get install $apt"
            as=sudo
        fi
        say "installing $apt with apt-get"
        # shellcheck disable=SC2086  # apt holds a list of packages
        $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $apt >&2 ||
            { $as apt-get update -q >&2 &&
                $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $apt >&2; } ||
            die "apt-get could not install $apt"
    elif command -v brew >/dev/null && [ -n "$brew" ]; then
        say "installing $brew with brew"
        brew install "$brew" >&2 || die "brew could not install $brew"
    else
        die "$program is missing, and neither apt-get nor brew is here to install it"
    fi
}

command -v go >/dev/null || die "go is missing: see https://go.dev/doc/install"
[ $# -gt 0 ] || die "say which: consul etcd oidc-provider cc curl redis-server nginx haproxy wrk h2load"
for tool in "$@"; do
    case $tool in
    consul)
        built consul 1.20 github.com/hashicorp/consul github.com/hashicorp/consul "$root/scripts/tools/consul"
        ;;
    etcd)
        built etcd 3.5 go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 "$root/scripts/tools/etcd"
        built etcdctl 3.5 go.etcd.io/etcd/etcdctl/v3 go.etcd.io/etcd/etcdctl/v3 "$root/scripts/tools/etcd"
        ;;
    oidc-provider) own oidc-provider "$root/scripts/tools/oidc" ;;
    cc) # the race detector needs a C compiler, except on macOS, which has one
        packaged cc "gcc libc6-dev" ""
        ;;
    curl) packaged curl "curl ca-certificates" curl ;;
    redis-server) packaged redis-server redis-server redis ;;
    nginx) packaged nginx nginx-light nginx ;;
    haproxy) packaged haproxy haproxy haproxy ;;
    wrk) packaged wrk wrk wrk ;;
    h2load) packaged h2load nghttp2-client nghttp2 ;;
    *) die "unknown tool $tool; known: consul etcd oidc-provider cc curl redis-server nginx haproxy wrk h2load" ;;
    esac
done
