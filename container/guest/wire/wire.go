// Package wire is the language that a guest's forward-server and the front end
// on the other side of its standard streams speak: CBOR items (RFC 8949) back to
// back, each a map of Type, ConnectionId and Payload. The bytes are those of the
// ContainerSSH agent's protocol, of which either end may be the original.
// spec.md beside this file tells the flow and the few additions.
//
// It turns bytes into packets and back, within limits. It knows nothing of
// sockets, and nothing of what a packet means for a connection.
package wire

// Type says what a packet is. Numbers that this package does not name are read
// like any other: it is for the receiver to ignore them.
type Type uint64

// The types of packets. Those from Window on are sent only to a peer that said in
// its Setup or Granted that it knows them.
const (
	// TypeSetup is the first packet, of the front end: its payload is a Setup.
	TypeSetup Type = iota
	// TypeSuccess says yes to a setup (connection id 0; the payload may be a
	// Granted), to a new connection, or to the end of one.
	TypeSuccess
	// TypeError says no to the same; the payload may be a sentence.
	TypeError
	// TypeData carries bytes of a connection.
	TypeData
	// TypeNew opens a connection: its payload is a New.
	TypeNew
	// TypeClose ends a connection, both directions.
	TypeClose
	// TypeNoMore ends the opening of connections; those that are open stay.
	TypeNoMore
	// TypeWindow lets the receiver send more of a connection's data: its payload is
	// a CBOR unsigned integer, in bytes.
	TypeWindow
	// TypeEOF says that no data of a connection follow in this direction.
	TypeEOF
)

// Limits of what is read, in bytes unless it is said otherwise. What the original
// sends is far below them.
const (
	// MaxPayload is what a packet may carry. The original sends 32 KiB at most.
	MaxPayload = 1 << 20
	// maxOther is all of a packet that is not its payload, unknown keys and their
	// values included.
	maxOther = 64 << 10
	// maxText is one text, such as the path of a socket.
	maxText = 4 << 10
	// maxEntries is how many keys a map may have.
	maxEntries = 32
	// maxDepth is how deep the value of an unknown key may nest.
	maxDepth = 8
)

// Packet is one message.
type Packet struct {
	Type Type
	// ConnectionID is 0 for what concerns no connection.
	ConnectionID uint64
	// Payload is nil where there is none, which is null on the wire.
	Payload []byte
}

// ConnectionType says in a Setup what is to be forwarded.
type ConnectionType uint64

// The connection types. The guest listens for X11 and the forwards, and dials for
// the dials.
const (
	ConnectionX11 ConnectionType = iota
	ConnectionPortForward
	ConnectionPortDial
	ConnectionSocketForward
	ConnectionSocketDial
)

// The protocols of addresses in Setup and New. The host or address of a unix
// socket is its path, and its port 0.
const (
	ProtocolTCP  = "tcp"
	ProtocolUnix = "unix"
)

// Extensions1 is the first set of additions: TypeWindow, TypeEOF, a Granted, and
// sentences in TypeError.
const Extensions1 = 1

// Setup tells the guest what to do.
type Setup struct {
	ConnectionType ConnectionType
	// BindHost and BindPort are where it listens, for the forwards; port 0 means
	// one that is free.
	BindHost string
	BindPort uint64
	// Protocol is one of the constants.
	Protocol string
	// Screen, AuthProtocol and AuthCookie are for X11 (RFC 4254 section 6.3.1).
	Screen string
	// SingleConnection ends listening after the first connection.
	SingleConnection         bool
	AuthProtocol, AuthCookie string
	// Extensions is Extensions1 from an end that knows these, and otherwise 0,
	// which is not on the wire at all.
	Extensions uint64
}

// Granted is the payload of the SUCCESS to a Setup, where there is one.
type Granted struct {
	// BindPort is the port that is listened on, 0 if none is.
	BindPort uint64
	// Extensions is Extensions1 if both ends use these from now on.
	Extensions uint64
}

// New describes a connection. Ports are 0 for unix sockets.
type New struct {
	Protocol          string
	ConnectedAddress  string
	ConnectedPort     uint64
	OriginatorAddress string
	OriginatorPort    uint64
}

// The keys of the maps, in the order in which they are written.
const (
	keyType         = "Type"
	keyConnectionID = "ConnectionId"
	keyPayload      = "Payload"

	keyConnectionType   = "ConnectionType"
	keyBindHost         = "BindHost"
	keyBindPort         = "BindPort"
	keyProtocol         = "Protocol"
	keyScreen           = "Screen"
	keySingleConnection = "SingleConnection"
	keyAuthProtocol     = "AuthProtocol"
	keyAuthCookie       = "AuthCookie"
	keyExtensions       = "Extensions"

	keyConnectedAddress  = "ConnectedAddress"
	keyConnectedPort     = "ConnectedPort"
	keyOriginatorAddress = "OriginatorAddress"
	keyOriginatorPort    = "OriginatorPort"
)
