# bash completion for sample, made from its flags.
# shellcheck shell=bash disable=SC2207

_converge_sample() {
	local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' options='' i
	COMPREPLY=()
	# readline takes --option=value for three words.
	if [[ $current == '=' ]]; then
		current=''
	elif [[ $before == '=' ]] && ((COMP_CWORD > 1)); then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} == -- ]]; then # a command of the user's own
			COMPREPLY=($(compgen -c -f -- "$current"))
			return
		fi
	done
	if ((COMP_CWORD > 1)); then
		case ${COMP_WORDS[1]} in
		start | stop) command=${COMP_WORDS[1]} ;;
		esac
	fi
	case "$command $before" in
	' -k' | \
		' --key' | \
		'start --from')
		COMPREPLY=($(compgen -f -- "$current"))
		return
		;;
	' --record')
		COMPREPLY=($(compgen -d -- "$current"))
		return
		;;
	' --peer' | \
		' --wait')
		return
		;;
	esac
	case $current in
	-*)
		case $command in
		'') options='-k
--key
--record
--peer
--quiet
-h
--help
--version
--wait' ;;
		'start') options='--from
-h
--help
--version' ;;
		'stop') options='-h
--help
--version' ;;
		esac
		COMPREPLY=($(compgen -W "$options" -- "$current"))
		;;
	*)
		if ((COMP_CWORD == 1)); then
			COMPREPLY=($(compgen -W 'start
stop' -- "$current"))
		fi
		;;
	esac
}
complete -o filenames -F _converge_sample sample converge-sample
