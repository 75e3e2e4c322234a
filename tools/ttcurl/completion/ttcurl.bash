# Put this where bash-completion looks, or into ~/.bashrc: source <(ttcurl completion bash)
_ttcurl() {
	local IFS=$'\n'
	# shellcheck disable=SC2207 # each line is a candidate, and none has white space
	COMPREPLY=($("${COMP_WORDS[0]}" __complete -line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o bashdefault -o default -F _ttcurl ttcurl
