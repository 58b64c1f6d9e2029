#!/bin/sh
# What the tasks of nixcache.hcl run beside the builder's own script.
#   nixcache.sh store    copies the nix of this image into the store below /cache
#   nixcache.sh daemon   serves the store, which is at /nix
#   nixcache.sh root     (the daemon's hook) keeps what has just been built
#   nixcache.sh build    waits for the daemon, then builds
#   nixcache.sh gc       deletes what nobody has built for seven days
set -u
roots=/nix/var/nix/gcroots/albatros
alive=/nix/var/nix/albatros # a file for each daemon, not older than some minutes
profile=/nix/var/nix/profiles/default
socket=${NOMAD_ALLOC_DIR:-/alloc}/nix-daemon.sock
me=${NOMAD_ALLOC_ID:-alone}

# one_setting is a line of nix.conf.
one_setting() {
	NIX_CONFIG="${NIX_CONFIG-}
$1"
	export NIX_CONFIG
}
one_setting 'experimental-features = nix-command flakes'

case ${1-} in
store)
	set -e
	nix=$(readlink -f "$profile")
	shell=$(readlink -f /bin/sh)
	shell=${shell%/bin/*}
	case $shell in /nix/store/*) ;; *) shell=$nix ;; esac
	mkdir -p /cache/nix/var/nix/profiles "/cache$roots" "/cache$alive"
	: >"/cache$alive/$me" # what is copied has no root yet
	# Concurrent copies are nix's to sort out; what is there is not copied again.
	nix copy --no-check-sigs --to 'local?root=/cache' "$nix" "$shell"
	for path in "$nix" "$shell"; do ln -sfn "$path" "/cache$roots/${path##*/}"; done
	ln -sfn "$nix" "/cache$profile"
	;;
daemon)
	set -e
	mkdir -p "$roots" "$alive"
	: >"$alive/$me"
	while sleep 60; do : >"$alive/$me"; done &
	# A build is root in its own container: that makes it nobody to be trusted.
	one_setting 'trusted-users ='
	one_setting 'keep-derivations = true'
	one_setting 'keep-outputs = true'
	one_setting "post-build-hook = $0-root"
	printf '#!/bin/sh\nexec /bin/sh %s root\n' "$0" >"$0-root"
	chmod 755 "$0-root"
	export NIX_DAEMON_SOCKET_PATH="$socket"
	exec "$profile/bin/nix-daemon"
	;;
root)
	# Some releases of nix leave OUT_PATHS empty.
	paths=${OUT_PATHS:-$("$profile/bin/nix-store" --query --outputs "$DRV_PATH")}
	for path in $paths; do ln -sfn "$path" "$roots/${path##*/}"; done
	;;
build)
	tries=0
	until [ -S "$socket" ]; do
		tries=$((tries + 1))
		if [ "$tries" -gt 300 ]; then
			echo 'builder: the nix daemon does not start' >&2
			exit 70
		fi
		sleep 1
	done
	one_setting 'sandbox = false'
	PATH=$profile/bin:$PATH
	export PATH NIX_REMOTE=daemon NIX_DAEMON_SOCKET_PATH="$socket"
	export NIX_SSL_CERT_FILE="$profile/etc/ssl/certs/ca-bundle.crt"
	exec /bin/sh "${0%/*}/build.sh"
	;;
gc)
	# Temporary roots go by process ids, which containers share by chance: nothing
	# is collected while others build here. The last of them does it.
	rm -f "$alive/$me"
	find "$roots" -mindepth 1 -maxdepth 1 -type l -mmin +10080 -delete
	find "$alive" -type f -mmin +1440 -delete
	if [ -n "$(find "$alive" -type f -mmin -5)" ]; then
		echo 'another build is under way here, and will clean up'
	else
		nix store gc
	fi
	# Its failure is not the build's.
	exit 0
	;;
*)
	echo 'usage: nixcache.sh store | daemon | build | gc' >&2
	exit 2
	;;
esac
