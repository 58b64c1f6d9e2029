#!/bin/sh
# What a builder of dispatch runs in Nomad: gets the commit, runs its .albatros
# (or .converge), and opens a debug session when that fails, for the people whom
# dispatch names. It needs git; for sessions also curl. The job files beside it put
# it into the task as a template; its variables are listed in docs/dispatch.md.
# shellcheck disable=SC2034 # newline and value are used by eval
set -u
mask=$(umask)
umask 077

say() { printf 'builder: %s\n' "$1" >&2; }
note() { printf 'debug session: %s\n' "$1" >&2; }
# fail STATUS TEXT ends the build; dispatch takes the text for the reason.
fail() {
	say "$2"
	exit "$1"
}

newline='
'
repository=${NOMAD_META_REPO_URL-} commit=${NOMAD_META_COMMIT-} branch=${NOMAD_META_BRANCH-}
: "${NOMAD_TASK_DIR:?is run by Nomad}" "${NOMAD_SECRETS_DIR:?is run by Nomad}"
payload=$NOMAD_TASK_DIR/payload
source=$NOMAD_TASK_DIR/source
private=$NOMAD_SECRETS_DIR/builder
secret=${BUILDER_SECRET_FILE:-$NOMAD_SECRETS_DIR/albatros/secret.txt}
child='' stopped='' fetched=''

# Where the file is another's to remove, it is empty at least.
trap ': >"$secret"; rm -rf "$private" "$secret" ${fetched:+"$fetched"} 2>/dev/null' EXIT
# The command that runs is told to end; no session follows.
trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' HUP INT TERM

# await waits for the child, whatever signals arrive meanwhile, and returns its status.
await() {
	while :; do
		wait "$child"
		set -- $?
		kill -0 "$child" 2>/dev/null || break
	done
	child=
	return "$1"
}
# run runs a command as the child, and returns its status.
run() {
	"$@" &
	child=$!
	[ -z "$stopped" ] || kill -TERM "$child"
	await
}
# What a shell starts beside itself ignores SIGINT for ever, unless env can undo it.
defaults=
if env --default-signal=INT,QUIT true 2>/dev/null; then defaults='env --default-signal=INT,QUIT'; fi

# --- what dispatch sent ---------------------------------------------------------

# An envelope has lines NAME=VALUE before the secrets, of which nothing may be
# changed. The payload is gone before code of the repository runs.
DISPATCH_DEBUG_URL='' DISPATCH_DEBUG_TOKEN='' DISPATCH_DEBUG_SERVER='' DISPATCH_DEBUG_FOR=30m
open_envelope() {
	names=
	while IFS= read -r line; do
		name=${line%%=*} value=${line#*=}
		case $name in
		DISPATCH_DEBUG_URL | DISPATCH_DEBUG_TOKEN | DISPATCH_DEBUG_SERVER | DISPATCH_DEBUG_FOR)
			eval "$name=\$value"
			continue
			;;
		*[!A-Z0-9_]*) continue ;;
		CONVERGE_AGENT_?*) ;;
		*) continue ;; # of a newer dispatch
		esac
		case " $names " in
		*" $name "*) eval "$name=\$$name\$newline\$value" ;;
		*)
			eval "$name=\$value"
			names="$names $name"
			;;
		esac
	done
}
mkdir -p "$private" "${secret%/*}" || fail 70 "cannot make the folders for the secrets"
: >"$secret" || fail 70 "cannot write $secret"
if [ -s "$payload" ]; then
	chmod 600 "$payload" 2>/dev/null
	header=0
	if [ "${NOMAD_META_DISPATCH_ENVELOPE-}" = 1 ]; then
		IFS= read -r line <"$payload"
		[ "$line" = "converge-dispatch 1" ] || fail 70 "the payload is not an envelope of version 1: take the builder of this release of dispatch"
		LC_ALL=C sed -e 1d -e '/^$/q' "$payload" >"$private/envelope"
		open_envelope <"$private/envelope"
		rm -f "$private/envelope"
		header=$(LC_ALL=C sed '/^$/q' "$payload" | wc -c)
	fi
	tail -c "+$((header + 1))" "$payload" >"$secret" || fail 70 "cannot write $secret"
fi
rm -f "$payload"
umask "$mask"

# --- the code ----------------------------------------------------------------------

protocols=${BUILDER_PROTOCOLS:-https:http:ssh}
case $commit in
*[!0-9a-f]*) fail 64 "COMMIT is not a full object id" ;;
????????????????????????????????????????) format=sha1 ;;
????????????????????????????????????????????????????????????????) format=sha256 ;;
*) fail 64 "COMMIT is not a full object id" ;;
esac
case $repository in
'' | -* | *::* | *[[:cntrl:]]*) fail 64 "REPO_URL is not a URL to clone" ;;
*://*)
	case ":$protocols:" in
	*":${repository%%://*}:"*) ;;
	*) fail 64 "REPO_URL is not of one of the protocols $protocols" ;;
	esac
	;;
*?@?*:?*) ;; # user@host:path
*) fail 64 "REPO_URL is not a URL to clone" ;;
esac

# become_git is git without anybody's configuration, hooks, questions and helper
# programs. BUILDER_GIT_CONFIG is a file that counts, such as one with credentials.
become_git() {
	unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_CONFIG_COUNT GIT_CONFIG_PARAMETERS GIT_EXEC_PATH GIT_TEMPLATE_DIR
	export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="${BUILDER_GIT_CONFIG:-/dev/null}" GIT_ATTR_NOSYSTEM=1
	export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=true SSH_ASKPASS=true SSH_ASKPASS_REQUIRE=never GIT_LFS_SKIP_SMUDGE=1
	export GIT_ALLOW_PROTOCOL="$protocols" GIT_SSH_COMMAND="${GIT_SSH_COMMAND:-ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4}"
	# shellcheck disable=SC2086 # these are several words
	exec $bound git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c protocol.ext.allow=never -c submodule.recurse=false \
		-c fetch.recurseSubmodules=false -c gc.auto=0 -c maintenance.auto=false -c advice.detachedHead=false \
		-c init.defaultBranch=master -c http.lowSpeedLimit=1 -c http.lowSpeedTime=60 "$@"
}
safe_git() (
	bound=
	become_git "$@"
)
limit=${BUILDER_TIMEOUT:-7200}
patience=${BUILDER_CLONE_TIMEOUT:-$limit}
began=$(date +%s)
fetch() {
	left=$((began + patience - $(date +%s)))
	if [ -n "$stopped" ] || [ "$left" -le 0 ]; then return 1; fi
	bound="timeout -k 30 $left"
	run become_git -C "$source" fetch --quiet --no-tags --no-recurse-submodules ${BUILDER_DEPTH:+--depth="$BUILDER_DEPTH"} -- "$repository" "$@"
}
has_commit() { safe_git -C "$source" cat-file -e "$commit^{commit}" 2>/dev/null; }

rm -rf "$source"
safe_git init --quiet --template= --object-format="$format" "$source" || fail 70 "cannot make a repository: is git 2.32 or later there?"
# The commit by itself, which most servers allow; else the branch, or tag, of it.
get() {
	fetch "$commit" 2>"$private/git" && has_commit && return
	if safe_git check-ref-format "refs/heads/$branch"; then
		fetch "+refs/heads/$branch:refs/remotes/origin/$branch" 2>>"$private/git" && has_commit && return
		fetch "+refs/tags/$branch:refs/tags/$branch" 2>>"$private/git" && has_commit && return
	fi
	return 1
}
get || { [ -z "$stopped" ] && run sleep "${BUILDER_RETRY_DELAY:-3}" && get; } || {
	[ -z "$stopped" ] || exit 143
	cat "$private/git" >&2
	[ $(($(date +%s) - began)) -lt "$patience" ] || fail 66 "getting the commit took longer than $patience seconds"
	fail 66 "the commit $commit is not at $repository, or that does not answer"
}
safe_git -C "$source" checkout --quiet --detach "$commit" || fail 66 "cannot check out $commit"
[ "$(safe_git -C "$source" rev-parse --verify HEAD)" = "$commit" ] || fail 66 "the checkout is not at $commit"
safe_git -C "$source" remote add origin "$repository"
cd "$source" || fail 70 "cannot go to $source"
[ -z "$stopped" ] || exit 143

# --- the build ---------------------------------------------------------------------

program=
for name in .albatros .converge; do
	if [ -f "$name" ] && [ -x "$name" ]; then
		program=$name
		break
	fi
done
[ -n "$program" ] || fail 66 "no executable .albatros at $commit"

export REPO_URL="$repository" COMMIT="$commit" BRANCH="$branch" FLAVOR="${NOMAD_META_FLAVOR-}" SECRET_PATH="$secret"
# The agent's options are not the build's.
hidden=$(env | LC_ALL=C sed -n -e 's/^\(CONVERGE_AGENT_[A-Z0-9_]*\)=.*/-u \1/p' -e 's/^\(NOMAD_META_DISPATCH_NONCE\)=.*/-u \1/p' -e 's/^\(BUILDER_GIT_CONFIG\)=.*/-u \1/p')
began=$(date +%s)
# shellcheck disable=SC2086 # these are several words
run $defaults env $hidden timeout -k 30 "$limit" "./$program"
code=$?
case $code in
124 | 137) if [ $(($(date +%s) - began)) -ge "$limit" ]; then say "the build took longer than $limit seconds"; fi ;;
esac
if [ "$code" = 0 ] || [ -n "$stopped" ]; then exit "$code"; fi

# --- the debug session -------------------------------------------------------------

case $DISPATCH_DEBUG_TOKEN in
'' | *[!A-Za-z0-9._~+/=-]*) exit "$code" ;;
esac
if [ -z "$DISPATCH_DEBUG_URL" ]; then exit "$code"; fi
if ! command -v curl >/dev/null; then
	note "none, since there is no curl here"
	exit "$code"
fi
# quiet_curl is curl without its user's configuration, and no further than asked.
quiet_curl() { curl -q --silent --show-error --proto '=https,http' --max-time 20 "$@"; }

# report JSON tells dispatch, which may be starting again: that takes no connection
# at all for a while (curl 7.52). The token is in no argument. What fails here
# changes nothing about the build.
report() {
	printf 'header = "Authorization: Bearer %s"\n' "$DISPATCH_DEBUG_TOKEN" |
		quiet_curl --config - --fail --retry 8 --retry-connrefused --retry-max-time 120 --header 'Content-Type: application/json' \
			--data-binary "$1" --output /dev/null "$DISPATCH_DEBUG_URL${NOMAD_JOB_ID-}/debug" ||
		note "dispatch was not told $2"
}
report "{\"state\":\"failed\",\"exit\":$code}" "that the build has failed"
[ -z "$stopped" ] || exit "$code"

# with_keys URL NAME... prints those of whom the forge has keys, or does not say:
# for one without the agent would not start.
with_keys() {
	forge=${1%/}
	shift
	for login; do
		case $login in '' | *[!A-Za-z0-9._-]*) continue ;; esac
		status=$(quiet_curl --max-filesize 262144 --output "$private/keys" --write-out '%{http_code}' "$forge/$login.keys")
		case $status in
		200) grep -Eq '^(ssh|ecdsa|sk)-' "$private/keys" || continue ;;
		404) continue ;;
		esac
		printf '%s\n' "$login"
	done
}
# prepare leaves in the environment who may log in, and fails if that is nobody.
prepare() {
	unset CONVERGE_AGENT_PASSWORD # never
	# shellcheck disable=SC2086,SC2163 # names of variables
	if [ -n "${names-}" ]; then export $names; fi
	anybody=
	for forge in GITEA=none GITHUB=https://github.com GITLAB=https://gitlab.com; do
		kind=${forge%%=*}
		eval "people=\${CONVERGE_AGENT_${kind}_USER-} address=\${CONVERGE_AGENT_${kind}_URL:-\${forge#*=}} token=\${CONVERGE_AGENT_${kind}_TOKEN-}"
		# shellcheck disable=SC2154,SC2086 # they are set above; one word a login
		case $address in
		none) ;;
		https://*) if [ -z "$token" ]; then people=$(with_keys "$address" $people); fi ;;
		*)
			if [ -n "$people" ]; then note "keys are not taken from $address, which is no https address"; fi
			people=
			unset "CONVERGE_AGENT_${kind}_URL"
			;;
		esac
		if [ -n "$people" ]; then export "CONVERGE_AGENT_${kind}_USER=$people"; else unset "CONVERGE_AGENT_${kind}_USER"; fi
	done
	for name in AUTHORIZED_KEY AUTHORIZED_KEYS GITEA_USER GITEA_ORG GITHUB_USER GITHUB_TEAM GITLAB_USER GITLAB_GROUP SOURCEHUT_USER KEYS_URL TRUSTED_USER_CA; do
		eval "anybody=\$anybody\${CONVERGE_AGENT_$name-}"
	done
	[ -n "$anybody" ]
}
# find_agent sets agent: the one named, the one installed, or the server's.
find_agent() {
	agent=${BUILDER_AGENT:-$(command -v converge-agent)}
	[ -z "$agent" ] || return 0
	# The folder for secrets is too small for it.
	fetched=$(mktemp -d "$NOMAD_TASK_DIR/agent.XXXXXX") || return
	agent=$fetched/agent
	web=http${DISPATCH_DEBUG_SERVER#ws}
	file=agent-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
	want=$(quiet_curl --fail "$web/docs/SHA256SUMS" | sed -n "s/^\([0-9a-f]\{64\}\)  $file\$/\1/p")
	[ -n "$want" ] && quiet_curl --fail --max-time 120 --output "$agent" "$web/docs/$file" &&
		printf '%s  %s\n' "$want" "$agent" | sha256sum -c >/dev/null && chmod 700 "$agent"
}
# tell_lines reports the session from what the agent prints: an object a line,
# whose strings are handed on as they are.
tell_lines() {
	string='\("[^"\\]*\(\\.[^"\\]*\)*"\)'
	while IFS= read -r line; do
		way=$(printf '%s\n' "$line" | LC_ALL=C sed -n "s/.*\"ssh_stock\":$string.*/\1/p")
		until=$(printf '%s\n' "$line" | LC_ALL=C sed -n "s/.*\"expires\":$string.*/\1/p")
		[ -z "$way" ] || report "{\"state\":\"open\",\"exit\":$code,\"line\":$way${until:+,\"until\":$until}}" "that a debug session is open"
	done
}

case $DISPATCH_DEBUG_SERVER in
ws://?* | wss://?*) ;;
*)
	note "none, since dispatch names no server"
	exit "$code"
	;;
esac
if ! prepare; then
	note "none, since nobody who may log in has a key"
	exit "$code"
fi
if ! find_agent; then
	note "none, since there is no agent here, and $DISPATCH_DEBUG_SERVER has none for this machine"
	exit "$code"
fi
mkfifo "$private/lines" || exit "$code"
tell_lines <"$private/lines" &
teller=$!
# shellcheck disable=SC2086 # these are several words
run $defaults "$agent" --print json --first-connect-timeout "$DISPATCH_DEBUG_FOR" --max-duration "$DISPATCH_DEBUG_FOR" "$DISPATCH_DEBUG_SERVER" \
	>"$private/lines"
wait "$teller"
report "{\"state\":\"closed\",\"exit\":$code}" "that the debug session has ended"
exit "$code"
