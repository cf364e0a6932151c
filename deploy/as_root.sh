# Sourced by the scripts beside it.

# Runs a command as root; fails where that takes a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo "$@"
    else return 1; fi
}
