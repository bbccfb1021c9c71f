# Installs system packages with the image's own package manager. The first argument is a folder for what is to be known of
# it, the others are the packages.
set -u
out=$1
shift

have() { command -v "$1" > /dev/null 2>&1; }

if have apt-get; then manager=apt-get; else
    for manager in dnf microdnf yum none; do
        if have "$manager"; then break; fi
    done
fi
if [ "$manager" = none ]; then exit 1; fi
echo "$manager" > "$out/manager"

listed() {
    if [ "$manager" = apt-get ]; then
        dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\n'
    else
        rpm -qa --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n'
    fi > "$out/$1" 2> /dev/null || : > "$out/$1"
}

apt() {
    apt-get -q -y -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o APT::Install-Recommends=false \
        -o APT::Cmd::Pattern-Only=true -o Acquire::Languages=none -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}

listed before
case $manager in
apt-get)
    apt update && apt install -- "$@"
    ;;
dnf | microdnf)
    "$manager" -y --setopt=install_weak_deps=0 --setopt=tsflags=nodocs install "$@"
    ;;
yum)
    yum -y --setopt=tsflags=nodocs --setopt=skip_missing_names_on_install=0 install "$@"
    ;;
esac
status=$?
if [ "$status" != 0 ]; then exit "$status"; fi
listed after

# What nobody builds with.
case $manager in
apt-get) apt clean && rm -rf /var/lib/apt/lists/* ;;
*) "$manager" clean all > /dev/null ;;
esac
exit 0
