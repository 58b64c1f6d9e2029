package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/converge/pkg/webhook"
)

// Key is a key of the file's top, which is an option of the program as well.
type Key struct {
	// Name is as in the file, such as logging.format.
	Name string
	// Usage explains it, without a full stop, with the value's name in
	// backquotes; Default is what holds without it.
	Usage, Default string
	// Switch keys are true or false; List keys may be repeated.
	Switch, List bool

	set func(*Config, string) error
}

// Flag is the name of the key's option.
func (k Key) Flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(k.Name) }

// Variable is the name of its environment variable.
func (k Key) Variable() string {
	return "GITGATE_" + strings.ToUpper(strings.NewReplacer(".", "_").Replace(k.Name))
}

// Keys are all of the top, in the order of the documents.
var Keys = []Key{
	{Name: "listen", Usage: "`ADDRESS` on which webhooks arrive; every one of the machine by default",
		set: func(c *Config, s string) error { c.Listen = s; return nil }},
	{Name: "port", Default: "5555", Usage: "`PORT` on which webhooks arrive; 0 takes a free one",
		set: number(func(c *Config) *int { return &c.Port }, 0, 65535)},
	{Name: "retry_count", Default: "10", Usage: "`NUMBER` of times that a clone or an update is tried",
		set: number(func(c *Config) *int { return &c.RetryCount }, 0, maxRetries)},
	{Name: "retry_delay", Default: "1", Usage: "`SECONDS` before the second time; each pause after it is twice as long, up to 30 s",
		set: duration(func(c *Config) *time.Duration { return &c.RetryDelay })},
	{Name: "threads", Default: "5", Usage: "`NUMBER` of repositories that are cloned or updated at a time",
		set: number(func(c *Config) *int { return &c.Threads }, 1, maxThreads)},
	{Name: "initialise", Default: "true", Switch: true, Usage: "bring all repositories up at the start, and those that a reload adds; --initialise=false waits for webhooks",
		set: boolean(func(c *Config) *bool { return &c.Initialise })},
	{Name: "logging.format", Default: "text", Usage: "`FORMAT` of log lines: text or json",
		set: func(c *Config, s string) error {
			switch strings.ToLower(s) {
			case "text", "":
				c.Logging.JSON = false
			default: // as the reference has it
				c.Logging.JSON = true
			}
			return nil
		}},
	{Name: "logging.output", Default: "stdout", Usage: "where to log: stdout or a `FILE`, which is opened again at SIGHUP",
		set: func(c *Config, s string) error { c.Logging.Output = s; return nil }},
	{Name: "logging.level", Default: "info", Usage: "least `LEVEL` that is logged: debug, info, warn or error",
		set: func(c *Config, s string) error {
			levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError}
			level, ok := levels[strings.ToLower(s)]
			if !ok {
				return errors.New("must be debug, info, warn or error")
			}
			c.Logging.Level = level
			return nil
		}},
	{Name: "logging.timestamp", Default: "true", Switch: true, Usage: "put the time into log lines; --logging-timestamp=false for journals that have it anyway",
		set: boolean(func(c *Config) *bool { return &c.Logging.Timestamp })},
	{Name: "poll", Default: "0s", Usage: "look at every repository once in this `TIME`, for webhooks that were lost; 0 never",
		set: duration(func(c *Config) *time.Duration { return &c.Poll })},
	{Name: "timeout", Default: "10m", Usage: "`TIME` after which a git command is ended",
		set: positive(func(c *Config) *time.Duration { return &c.Timeout })},
	{Name: "allow_sha1", Default: "false", Switch: true, Usage: "accept the old signature X-Hub-Signature where there is no other",
		set: boolean(func(c *Config) *bool { return &c.AllowSHA1 })},
	{Name: "max_body", Default: strconv.Itoa(webhook.MaxBody), Usage: "largest payload, in `BYTES`",
		set: number(func(c *Config) *int { return &c.MaxBody }, 1024, webhook.MaxBody)},
	{Name: "replay_window", Default: "1h", Usage: "`TIME` for which a delivery is remembered, so that it is not acted upon twice",
		set: duration(func(c *Config) *time.Duration { return &c.ReplayWindow })},
	{Name: "known_hosts", Usage: "`FILE` with the keys of ssh servers; by default known_hosts beside the configuration, or ssh's own",
		set: func(c *Config, s string) error { c.KnownHosts = s; return nil }},
	{Name: "ca_file", Usage: "PEM `FILE` with the certificates that https remotes must come from, in place of the machine's",
		set: func(c *Config, s string) error { c.CAFile = s; return nil }},
	{Name: "tls_cert", Usage: "PEM `FILE` with the certificate chain; re-read when it changes",
		set: func(c *Config, s string) error { c.TLSCert = s; return nil }},
	{Name: "tls_key", Usage: "PEM `FILE` with the certificate's key",
		set: func(c *Config, s string) error { c.TLSKey = s; return nil }},
	{Name: "metrics_listen", Usage: "`ADDRESS`, HOST:PORT, of a second listener for /metrics, which names repositories",
		set: func(c *Config, s string) error { c.MetricsListen = s; return nil }},
	{Name: "notify", List: true, Usage: "tell of successes and failures: `FORMAT+URL`, where FORMAT is slack or json",
		set: func(c *Config, s string) error {
			err := checkNotify(s)
			if err == nil {
				c.Notify = append(c.Notify, s)
			}
			return err
		}},
}

func number(at func(*Config) *int, least, most int) func(*Config, string) error {
	return func(c *Config, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a number from %d to %d", least, most)
		}
		*at(c) = n
		return nil
	}
}

func boolean(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, s string) error {
		b, err := parseBool(s)
		if err == nil {
			*at(c) = b
		}
		return err
	}
}

// parseBool takes what YAML takes as well.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1", "t", "y":
		return true, nil
	case "false", "no", "off", "0", "f", "n":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

func duration(at func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, s string) error {
		d, err := parseDuration(s)
		if err == nil {
			*at(c) = d
		}
		return err
	}
}

func positive(at func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, s string) error {
		d, err := parseDuration(s)
		if err == nil && d <= 0 {
			err = errors.New("must be longer than 0")
		}
		if err == nil {
			*at(c) = d
		}
		return err
	}
}

// parseDuration reads 30s, 10m or 1h30m; a number alone is seconds.
func parseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxSeconds*time.Second {
		return 0, errors.New("must be a duration such as 30s, 10m or 1h30m, or a number of seconds")
	}
	return d, nil
}

// reader goes through a file, and keeps all that is wrong.
type reader struct {
	strict   bool
	config   *Config
	errs     []error
	warnings []Warning
}

func (r *reader) wrong(line int, format string, a ...any) {
	err := fmt.Errorf(format, a...)
	if line > 0 {
		err = fmt.Errorf("line %d: %w", line, err)
	}
	r.errs = append(r.errs, err)
}

func (r *reader) warn(line int, format string, a ...any) {
	r.warnings = append(r.warnings, Warning{line, fmt.Sprintf(format, a...)})
}

// unknown is what becomes of a key that is none.
func (r *reader) unknown(line int, name string, known []string) {
	hint := ""
	for _, k := range known {
		if strings.EqualFold(plain(k), plain(name)) {
			hint = ": write " + k
		}
	}
	if r.strict {
		r.wrong(line, "the key %.64q is not known%s", name, hint)
	} else {
		r.warn(line, "the key %.64q is not known, and does nothing%s", name, hint)
	}
}

func plain(s string) string { return strings.NewReplacer("_", "", "-", "", ".", "").Replace(s) }

// readTop reads everything.
func (r *reader) readTop(root *node, overrides []Override) {
	for _, k := range Keys {
		if k.Default != "" {
			if err := k.set(r.config, k.Default); err != nil {
				panic(fmt.Sprintf("config: the default of %s: %v", k.Name, err))
			}
		}
	}
	var known []string
	for _, k := range Keys {
		known = append(known, k.Name)
	}
	overridden := func(name string) bool {
		return slices.ContainsFunc(overrides, func(o Override) bool { return o.Key == name })
	}
	var repos *node
	var walk func(n *node, prefix string)
	walk = func(n *node, prefix string) {
		r.once(n)
		for _, e := range n.keys {
			name := prefix + strings.ToLower(e.name)
			at := slices.IndexFunc(Keys, func(k Key) bool { return k.Name == name })
			switch {
			case name == "repos":
				repos = e.value
			case name == "logging" && e.value.kind == mapping:
				walk(e.value, "logging.")
			case at < 0:
				r.unknown(abs(e.line), prefix+e.name, append(known, "repos"))
			default:
				r.set(Keys[at], e, overridden(name))
			}
		}
	}
	walk(root, "")
	for _, o := range overrides {
		for _, k := range Keys {
			if k.Name != o.Key {
				continue
			}
			if err := k.set(r.config, o.Value); err != nil {
				r.wrong(0, "%s of %s %w", k.Name, o.Source, err)
			}
		}
	}
	r.readRepos(repos)
}

// set gives a key its value, unless there is a stronger one; it is checked all
// the same.
func (r *reader) set(k Key, e entry, overridden bool) {
	into := r.config
	if overridden {
		into = &Config{}
	}
	values, ok := r.texts(k.Name, e, k.List)
	if !ok {
		return
	}
	r.config.holdsSecret = r.config.holdsSecret || k.Name == "notify"
	for _, v := range values {
		if k.Name == "logging.level" {
			// The reference takes what it does not know for its default.
			if err := k.set(into, v); err != nil {
				r.warn(abs(e.line), "logging.level %v: info is taken", err)
			}
			continue
		}
		if err := k.set(into, v); err != nil {
			r.wrong(abs(e.line), "%s %w", k.Name, err)
		}
	}
}

// once refuses keys that are there twice; one that was merged may be.
func (r *reader) once(n *node) {
	seen := map[string]int{}
	for _, e := range n.keys {
		name := strings.ToLower(e.name)
		if first := seen[name]; first > 0 && e.line > 0 {
			r.wrong(e.line, "%s is there twice: the first time in line %d", e.name, first)
		}
		if e.line > 0 {
			seen[name] = e.line
		}
	}
}

// texts are the values of a key: one, or for a list any number. A key without a
// value is as if it were not there.
func (r *reader) texts(name string, e entry, list bool) ([]string, bool) {
	switch {
	case e.value.kind == null:
		return nil, false
	case e.value.kind == scalar:
		return []string{e.value.text}, true
	case e.value.kind == sequence && list:
		var all []string
		for _, one := range e.value.list {
			if one.kind != scalar {
				r.wrong(one.line, "%s must be a list of words", name)
				return nil, false
			}
			all = append(all, one.text)
		}
		return all, true
	case list:
		r.wrong(abs(e.line), "%s must be a value or a list of them", name)
	default:
		r.wrong(abs(e.line), "%s must be one value", name)
	}
	return nil, false
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
