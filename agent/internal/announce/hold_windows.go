package announce

// HoldCommand is what a user types to hold the session, in cmd or PowerShell.
const HoldCommand = `copy /y nul "%agentdir%\.hold"   (PowerShell: New-Item -Force "$env:agentdir\.hold")`
