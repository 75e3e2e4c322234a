#compdef ttcurl
# Put this into a directory of $fpath as _ttcurl, or into ~/.zshrc: source <(ttcurl completion zsh)
_ttcurl() {
	local -a candidates
	candidates=("${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
	candidates=(${candidates:#})
	if (( ${#candidates} )); then
		compadd -- "${candidates[@]}"
	else
		_files
	fi
}
if [ "$funcstack[1]" = "_ttcurl" ]; then
	_ttcurl "$@"
else
	compdef _ttcurl ttcurl
fi
