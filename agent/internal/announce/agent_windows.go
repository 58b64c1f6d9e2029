package announce

// AgentVariable is the variable that tells shells of the job where the agent's
// program is, since that need not be on the PATH.
const AgentVariable = "CONVERGE_AGENT"

// AgentCommand is how a user calls it in cmd or PowerShell.
const AgentCommand = `"%` + AgentVariable + `%" (PowerShell: & $env:` + AgentVariable + `)`
