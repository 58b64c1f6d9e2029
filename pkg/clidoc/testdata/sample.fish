# fish completion for sample, made from its flags.

function __converge_sample_is
	set -l words (commandline -opc)
	if contains -- -- $words
		return 1
	end
	if test (count $words) -gt 1; and contains -- $words[2] start stop
		test $words[2] = "$argv[1]"
		return
	end
	test -z "$argv[1]"
end

complete -c sample -n '__fish_is_nth_token 1' -f -a start -d 'begins'
complete -c sample -n '__fish_is_nth_token 1' -f -a stop -d 'ends: for good'
complete -c sample -n '__converge_sample_is ""' -s k -l key -r -F -d 'private key FILE; it\'s *not* shown | ever: [never]'
complete -c sample -n '__converge_sample_is ""' -l record -x -a '(__fish_complete_directories)' -d 'DIR for <files>'
complete -c sample -n '__converge_sample_is ""' -l peer -x -d 'NAME of $HOME "quoted"'
complete -c sample -n '__converge_sample_is ""' -l quiet -d 'say nothing'
complete -c sample -n '__converge_sample_is ""' -s h -l help -d 'show this help'
complete -c sample -n '__converge_sample_is ""' -l version -d 'show the version'
complete -c sample -n '__converge_sample_is ""' -l wait -x -d 'how long'
complete -c sample -n '__converge_sample_is "start"' -l from -r -F -d 'FILE to read'
complete -c sample -n '__converge_sample_is "start"' -s h -l help -d 'show this help'
complete -c sample -n '__converge_sample_is "start"' -l version -d 'show the version'
complete -c sample -n '__converge_sample_is "stop"' -s h -l help -d 'show this help'
complete -c sample -n '__converge_sample_is "stop"' -l version -d 'show the version'
complete -c converge-sample -n '__fish_is_nth_token 1' -f -a start -d 'begins'
complete -c converge-sample -n '__fish_is_nth_token 1' -f -a stop -d 'ends: for good'
complete -c converge-sample -n '__converge_sample_is ""' -s k -l key -r -F -d 'private key FILE; it\'s *not* shown | ever: [never]'
complete -c converge-sample -n '__converge_sample_is ""' -l record -x -a '(__fish_complete_directories)' -d 'DIR for <files>'
complete -c converge-sample -n '__converge_sample_is ""' -l peer -x -d 'NAME of $HOME "quoted"'
complete -c converge-sample -n '__converge_sample_is ""' -l quiet -d 'say nothing'
complete -c converge-sample -n '__converge_sample_is ""' -s h -l help -d 'show this help'
complete -c converge-sample -n '__converge_sample_is ""' -l version -d 'show the version'
complete -c converge-sample -n '__converge_sample_is ""' -l wait -x -d 'how long'
complete -c converge-sample -n '__converge_sample_is "start"' -l from -r -F -d 'FILE to read'
complete -c converge-sample -n '__converge_sample_is "start"' -s h -l help -d 'show this help'
complete -c converge-sample -n '__converge_sample_is "start"' -l version -d 'show the version'
complete -c converge-sample -n '__converge_sample_is "stop"' -s h -l help -d 'show this help'
complete -c converge-sample -n '__converge_sample_is "stop"' -l version -d 'show the version'
