# PowerShell completion for sample, made from its flags.
Register-ArgumentCompleter -Native -CommandName 'sample', 'sample.exe', 'converge-sample' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | ForEach-Object { $_.ToString() })
    # The word before the one that is being completed, if any of that is written.
    $before = $words.Count - 1
    if ($wordToComplete -ne '') { $before-- }
    if ($words[0..$before] -contains '--') { return }
    $commands = [ordered]@{
        'start' = 'begins'
        'stop' = 'ends: for good'
    }
    $options = @{
        '' = [ordered]@{
            '-k' = 'private key FILE; it''s *not* shown | ever: [never]'
            '--key' = 'private key FILE; it''s *not* shown | ever: [never]'
            '--record' = 'DIR for <files>'
            '--peer' = 'NAME of $HOME "quoted"'
            '--quiet' = 'say nothing'
            '-h' = 'show this help'
            '--help' = 'show this help'
            '--version' = 'show the version'
            '--wait' = 'how long'
        }
        'start' = [ordered]@{
            '--from' = 'FILE to read'
            '-h' = 'show this help'
            '--help' = 'show this help'
            '--version' = 'show the version'
        }
        'stop' = [ordered]@{
            '-h' = 'show this help'
            '--help' = 'show this help'
            '--version' = 'show the version'
        }
    }
    $level = ''
    if ($words.Count -gt 1 -and $commands.Contains($words[1]) -and $words[1] -ne $wordToComplete) { $level = $words[1] }
    # No answer: PowerShell offers files for the value of an option.
    if ($before -gt 0 -and @('-k', '--key', '--record', '--peer', '--wait', '--from') -ccontains $words[$before]) { return }
    $offered = $options[$level]
    if ($wordToComplete -notlike '-*') {
        if ($before -gt 0) { return }
        $offered = $commands
    }
    foreach ($name in @($offered.Keys)) {
        if ($name.StartsWith($wordToComplete)) {
            [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterName', $offered[$name])
        }
    }
}
