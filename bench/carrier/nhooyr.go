package carrier

import (
	"context"
	"net"
	"sync"

	"nhooyr.io/websocket"
)

//lint:file-ignore SA1019 nhooyr.io/websocket is what is measured here

// NetConn makes a stream of a nhooyr websocket, as most programs do that carry
// TCP over it.
func NetConn(ws *websocket.Conn) net.Conn {
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
}

// dialNhooyr opens a nhooyr websocket. ctx bounds the handshake.
func dialNhooyr(ctx context.Context, url string) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	return ws, err
}

// serveNhooyr keeps a control websocket; each text message on it is a token
// with which to dial back for one client.
func (e End) serveNhooyr(ctx context.Context) error {
	control, err := dialNhooyr(ctx, "ws://"+e.Address+AgentPath+e.ID)
	if err != nil {
		return err
	}
	defer control.CloseNow()
	e.Ready(e.Address)
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for {
		_, token, err := control.Read(ctx)
		if err != nil {
			return err
		}
		clients.Go(func() {
			ws, err := dialNhooyr(ctx, "ws://"+e.Address+DataPath+string(token))
			if err != nil {
				return // the relay's client waits no longer than the relay does
			}
			defer ws.CloseNow()
			e.handle(ctx, NetConn(ws))
		})
	}
}
