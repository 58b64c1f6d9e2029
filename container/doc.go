// Package container serves the sessions of SSH connections inside containers:
// a connection launches a container, and every session channel becomes a
// program in it. It is the back end; the SSH server in front of it is the
// caller's. It speaks to Docker, and to podman's service of the same API.
//
// The order of calls is that of SSH:
//
//	handler, err := container.New(clientAddress, connectionID, cfg, logger, requests, failures)
//	connection, err := handler.OnHandshakeSuccess(username)
//	session, err := connection.OnSessionChannel(channelID, extraData)
//	err = session.OnShell(requestID, stdin, stdout, stderr, func(status container.ExitStatus) { … })
//	session.OnClose()
//	handler.OnDisconnect()
//
// An error of a session's method means that the request was refused; Error has
// the text for the user. No container is left behind: it is removed when its
// session or connection ends, and Sweep removes those of a process that was
// killed.
//
// The package must not know SSH's wire, who may log in, or which program embeds
// it.
package container
