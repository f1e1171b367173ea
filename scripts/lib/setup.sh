# Shared by the scripts beside this folder: the virtual environment and what is installed into it.
# Sourced, not run. Defines ROOT, VENV and the functions below.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# Answers no question, starts no service, and tells nobody of it unless it fails.
apt_install() {
    local log
    log=$(mktemp)
    say "installing $* (apt-get)"
    if ! (apt_quietly "$@" || { apt-get update && apt_quietly "$@"; }) </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: $*"
    fi
    rm -f "$log"
}

# In a shell of its own, so that the policy goes even when this is interrupted.
apt_quietly() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
)

# Debian's services stay off: the tests and scripts start servers of their own.
disable_services() {
    [ -d /run/systemd/system ] || return 0
    systemctl disable --now "$@" >/dev/null 2>&1 || say "could not disable: $*"
}

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null &&
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    # Its programs name it by its full path: after a move it has to be made anew.
    if [ -x "$VENV/bin/pip" ] && "$VENV/bin/python" -c '' 2>/dev/null && "$VENV/bin/pip" --version >/dev/null 2>&1
    then
        return
    fi
    if ! python=$(find_python); then
        is_root && command -v apt-get >/dev/null || fail "Python 3.11 or newer is needed"
        apt_install python3 python3-venv
        python=$(find_python) || fail "Python 3.11 or newer is needed; this system's python3 is older"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        is_root && command -v apt-get >/dev/null ||
            fail "$python cannot make virtual environments: install python3-venv (as root: apt-get install python3-venv)"
        apt_install python3-venv
    fi
    say "making $VENV"
    "$python" -m venv --clear "$VENV" || fail "could not make $VENV"
}

# install_project EXTRAS: the project, editable, with its extras (such as "test,servers"; may be empty) and what
# the clients need: a later `pip install '.[asyncio]'` would put a copy in place of the editable project.
# A stamp makes it quick the second time; an installation with more extras serves those with fewer.
install_project() {
    local extras=$1 stamp=$VENV/.installed wanted log
    wanted=$(cd "$ROOT" && { printf '%s\n' "$ROOT"; cat setup.cfg pyproject.toml constraints.txt scripts/lib/setup.sh; } | sha256sum)
    if [ -x "$VENV/bin/twistd" ] && [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$wanted" ]; then
        case ",$(tail -n 1 "$stamp")," in
        *",$extras,"*) return ;;
        esac
        # Never less than what is there: a later scripts/test has nothing to do again.
        [ -n "$extras" ] || return 0
    fi
    make_venv
    say "installing the project${extras:+ with $extras} (a minute or so, once)"
    log=$(mktemp)
    # compat: the whole folder on the path, as Twisted looks for plugins in folders only.
    if ! (cd "$ROOT" && "$VENV/bin/python" -m pip install --disable-pip-version-check \
        --config-settings editable_mode=compat -e ".[asyncio${extras:+,$extras}]" -c constraints.txt) \
        </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "pip could not install the project"
    fi
    rm -f "$log"
    printf '%s\n%s\n' "$wanted" "$extras" >"$stamp"
}

# Redis and RabbitMQ, from Debian's packages.
install_servers() {
    local missing=()
    command -v redis-server >/dev/null || missing+=(redis-server)
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
    install_missing
}

# The proxies before nodes, as above. The second word of a pair is the package.
install_proxies() {
    local missing=() pair
    for pair in haproxy:haproxy nginx:nginx-light; do
        PATH=$PATH:/usr/sbin command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    install_missing
}

# The packages that the caller has found `missing`.
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    is_root && command -v apt-get >/dev/null ||
        fail "not installed: ${missing[*]} (as root: apt-get install ${missing[*]})"
    apt_install "${missing[@]}"
    # nginx-light is the service nginx.
    disable_services "${missing[@]/nginx-light/nginx}"
}

# The browser that the web pages are tested in. Its shell does most of the work for half the processor time;
# where it cannot be had, the browser does it all.
install_browser() {
    if ! command -v chromium >/dev/null; then
        is_root && command -v apt-get >/dev/null || fail "not installed: chromium (as root: apt-get install chromium)"
        apt_install chromium
    fi
    if ! command -v chromium-headless-shell >/dev/null && is_root && command -v apt-get >/dev/null; then
        (apt_install chromium-headless-shell) || say "the tests of the pages use chromium alone"
    fi
}
