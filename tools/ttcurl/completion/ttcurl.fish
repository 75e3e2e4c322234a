# Put this into ~/.config/fish/completions/ttcurl.fish, or into config.fish: ttcurl completion fish | source
function __ttcurl_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c ttcurl -a '(__ttcurl_complete)'
