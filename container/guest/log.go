package guest

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// lines is the log of a mode: lines of LEVEL message key=value. Package log/slog
// would be a tenth of the program's size, for it brings encoding/json.
type lines struct {
	name string
	mu   sync.Mutex
	w    io.Writer
}

// Debug implements mux.Logger, and says nothing.
func (l *lines) Debug(string, ...any) {}

// Info implements mux.Logger.
func (l *lines) Info(message string, pairs ...any) { l.write("INFO", message, pairs) }

// Warn implements mux.Logger.
func (l *lines) Warn(message string, pairs ...any) { l.write("WARN", message, pairs) }

func (l *lines) write(level, message string, pairs []any) {
	var b strings.Builder
	b.WriteString(l.name + ": " + level + " " + message)
	for i := 0; i+1 < len(pairs); i += 2 {
		value := fmt.Sprint(pairs[i+1])
		// Nothing that a peer says may disturb the line, or a terminal.
		if q := strconv.Quote(value); q[1:len(q)-1] != value || value == "" || strings.ContainsAny(value, " =") {
			value = q
		}
		fmt.Fprintf(&b, " %v=%s", pairs[i], value)
	}
	b.WriteByte('\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, b.String())
}
