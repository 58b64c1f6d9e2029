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
func LogFlags(program string) []cli.Flag { return LogFlagsAt(program, "info") }

// LogFlagsAt is LogFlags with another level unless one is asked for, for a
// program whose standard error is somebody else's too.
func LogFlagsAt(program, level string) []cli.Flag {
	const category = "Log options"
	return []cli.Flag{
		&cli.StringFlag{
			Name: "log-format", Category: category, Value: "text",
			Usage:   "`FORMAT` of log lines: text or json",
			EnvVars: EnvVars(program, "log-format"),
		},
		&cli.StringFlag{
			Name: "log-level", Category: category, Value: level,
			Usage:   "least `LEVEL` that is logged: debug, info, warn or error",
			EnvVars: EnvVars(program, "log-level"),
		},
	}
}

// Logger makes the logger that the options of LogFlags describe; it writes to
// in.Stderr. A value that is none of those named is a usage error.
func Logger(in *Invocation) (*slog.Logger, error) { return LoggerAt(in, new(slog.LevelVar)) }

// LogLevel reads --log-level.
func LogLevel(in *Invocation) (slog.Level, error) {
	level, ok := logLevels[in.String("log-level")]
	if !ok {
		return 0, Usagef("the log level is %q: give debug, info, warn or error", in.String("log-level"))
	}
	return level, nil
}

// LoggerAt is Logger with a level that may be changed later; it is set first.
func LoggerAt(in *Invocation, at *slog.LevelVar) (*slog.Logger, error) {
	level, err := LogLevel(in)
	if err != nil {
		return nil, err
	}
	at.Set(level)
	options := &slog.HandlerOptions{Level: at}
	switch format := in.String("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(in.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(in.Stderr, options)), nil
	default:
		return nil, Usagef("the log format is %q: give text or json", format)
	}
}
