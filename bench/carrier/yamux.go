package carrier

import (
	"context"
	"io"

	"github.com/hashicorp/yamux"
)

//lint:file-ignore SA1019 nhooyr.io/websocket is what is measured here

// YamuxConfig is yamux's default, with its window of 256 KiB, in silence.
func YamuxConfig() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	return config
}

// serveYamux takes clients as yamux streams on one websocket.
func (e End) serveYamux(ctx context.Context) error {
	ws, err := dialNhooyr(ctx, "ws://"+e.Address+AgentPath+e.ID)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	session, err := yamux.Server(NetConn(ws), YamuxConfig())
	if err != nil {
		return err
	}
	defer session.Close()
	e.Ready(e.Address)
	return e.accept(ctx, session)
}
