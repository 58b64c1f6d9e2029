package cmdline

import (
	"log/slog"

	"github.com/urfave/cli/v2"
)

// logLevels are the values of --log-level.
var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug,
	"info":  slog.LevelInfo,
	"warn":  slog.LevelWarn,
	"error": slog.LevelError,
}

// LogFlags returns --log-format and --log-level, which Logger reads.
func LogFlags(program string) []cli.Flag {
	const category = "Log options"
	return []cli.Flag{
		&cli.StringFlag{
			Name: "log-format", Category: category, Value: "text",
			Usage:   "`FORMAT` of log lines: text or json",
			EnvVars: EnvVars(program, "log-format"),
		},
		&cli.StringFlag{
			Name: "log-level", Category: category, Value: "info",
			Usage:   "least `LEVEL` that is logged: debug, info, warn or error",
			EnvVars: EnvVars(program, "log-level"),
		},
	}
}

// Logger makes the logger that the options of LogFlags describe; it writes to
// in.Stderr. A value that is none of those named is a usage error.
func Logger(in *Invocation) (*slog.Logger, error) {
	level, ok := logLevels[in.String("log-level")]
	if !ok {
		return nil, Usagef("the log level is %q: give debug, info, warn or error", in.String("log-level"))
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := in.String("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(in.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(in.Stderr, options)), nil
	default:
		return nil, Usagef("the log format is %q: give text or json", format)
	}
}
