package expiry

import (
	"fmt"
	"slices"
	"time"
)

// unit is the resolution of the random sequences; all their times are multiples.
const unit = 5 * time.Second

// model is the reference: it lives through every unit of time one after the
// other, keeps counters in place of instants, and works the deadline out anew
// from the whole history each time. It shares no code with the core.
type model struct {
	cfg     Config
	clock   int // units since the start
	history []modelEntry
	conns   map[UserID]*modelConn
	ever    bool
	running bool          // the job is
	base    time.Duration // when it ended
	armed   map[time.Duration]bool
	// graceLeft counts the units down to the end once nobody is left.
	graceLeft int
	before    time.Duration // the deadline at the last look at the warnings
	why       Reason
	out       []string
}

type modelEntry struct {
	what string // "activity", "hold" or "unhold"
	at   time.Duration
}

type modelConn struct {
	open      map[Use]int
	idleUnits int
	last      Use
	any       bool // a session of it has closed
}

const forever = 100 * 365 * 24 * time.Hour

func newModel(cfg Config) *model {
	m := &model{cfg: cfg, running: cfg.Busy, conns: map[UserID]*modelConn{}, armed: map[time.Duration]bool{}}
	m.before = m.deadline()
	for _, level := range m.levels() {
		m.armed[level] = level < m.before
	}
	return m
}

func (m *model) now() time.Duration { return time.Duration(m.clock) * unit }

func (m *model) levels() []time.Duration {
	first := m.cfg.Warning
	for _, limit := range []time.Duration{m.cfg.Expiry, m.cfg.MaxDuration} {
		if limit > 0 && m.cfg.Warning >= limit {
			first = min(first, limit/2)
		}
	}
	var levels []time.Duration
	for level := first; level > 0 && (level == first || level >= time.Minute); level /= 2 {
		levels = append(levels, level)
	}
	return levels
}

// hold scans the history for the date of .hold.
func (m *model) hold() (date time.Duration, held bool) {
	for _, entry := range m.history {
		switch entry.what {
		case "hold":
			date, held = entry.at, true
		case "unhold":
			date, held = 0, false
		}
	}
	return date, held
}

// extended is the formula without the cap.
func (m *model) extended() time.Duration {
	plus := func(at time.Duration) time.Duration {
		if m.cfg.Expiry == 0 {
			return forever
		}
		return at + m.cfg.Expiry
	}
	end := plus(m.base)
	if !m.ever && m.cfg.FirstConnect > 0 {
		end = m.base + m.cfg.FirstConnect
	}
	for _, entry := range m.history {
		if entry.what == "activity" && m.ever {
			end = max(end, plus(entry.at))
		}
	}
	if date, held := m.hold(); held {
		end = max(end, plus(date))
	}
	return end
}

func (m *model) deadline() time.Duration {
	if m.running {
		return forever
	}
	end := m.extended()
	if m.cfg.MaxDuration > 0 {
		end = min(end, m.base+m.cfg.MaxDuration)
	}
	return end
}

func (c *modelConn) nothing() bool { return c.open[Shell]+c.open[Exec]+c.open[Forward] == 0 }

func (m *model) here() []UserID {
	var ids []UserID
	for id, c := range m.conns {
		if !c.nothing() || c.idleUnits < int(IdleAfter/unit) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (m *model) phase() Phase {
	switch {
	case m.why != None:
		return Ended
	case !m.ever:
		return Waiting
	case len(m.here()) > 0:
		return Active
	}
	return Lingering
}

// went starts the countdown of the last-logout rule if c was the last.
func (m *model) went(c *modelConn) {
	if len(m.here()) > 0 {
		return
	}
	m.graceLeft = int(m.cfg.Grace / unit)
	if c.any && c.last == Shell && c.open[Shell]+c.open[Exec] == 0 {
		m.graceLeft = 0
	}
}

// settle ends the session if that is due in the present unit.
func (m *model) settle() {
	if m.why != None || m.running {
		return
	}
	_, held := m.hold()
	switch {
	case m.now() >= m.deadline():
		m.why = Expired
		if !m.ever {
			m.why = FirstConnectTimeout
		}
		if m.cfg.MaxDuration > 0 && m.extended() > m.base+m.cfg.MaxDuration {
			m.why = MaxDuration
		}
	case m.ever && len(m.here()) == 0 && m.graceLeft <= 0 && !held && !m.cfg.Keep:
		m.why = LastLogout
	default:
		return
	}
	m.out = append(m.out, fmt.Sprintf("%v end %v", m.now(), m.why))
}

// warn looks at the warnings.
func (m *model) warn() {
	if m.why != None {
		return
	}
	end := m.deadline()
	left := end - m.now()
	if end > m.before {
		// Armed anew, but what is due and was not said is still to be said.
		for _, level := range m.levels() {
			if level < left {
				m.armed[level] = true
			}
		}
	}
	m.before = end
	due := false
	for _, level := range m.levels() {
		if m.armed[level] && left <= level {
			due, m.armed[level] = true, false
		}
	}
	if due {
		m.out = append(m.out, fmt.Sprintf("%v warn %v (%v)", m.now(), left, end))
	}
}

// pass lives through one unit of time.
func (m *model) pass() {
	if m.why != None {
		m.clock++
		return
	}
	m.clock++
	m.graceLeft--
	var left []*modelConn
	for _, c := range m.conns {
		if c.nothing() {
			c.idleUnits++
			if c.idleUnits == int(IdleAfter/unit) {
				left = append(left, c)
			}
		}
	}
	// The deadline goes before anybody's leaving at the same instant. No two
	// leave together: see sequence.
	if m.now() < m.deadline() {
		for _, c := range left {
			m.went(c)
		}
	}
	m.settle()
	m.warn()
}

// happen applies an event in the present unit.
func (m *model) happen(e Event) {
	if m.why != None {
		return
	}
	c := m.conns[e.user]
	switch e.kind {
	case evLogin:
		if c != nil {
			break
		}
		m.conns[e.user] = &modelConn{open: map[Use]int{}}
		m.someone()
	case evLogout:
		if c == nil {
			break
		}
		wasHere := slices.Contains(m.here(), e.user)
		delete(m.conns, e.user)
		if wasHere {
			m.went(c)
		}
	case evOpened:
		if c != nil {
			c.open[e.use]++
			c.idleUnits = 0
			m.someone()
		}
	case evClosed:
		if c == nil || c.open[e.use] == 0 {
			break
		}
		c.open[e.use]--
		c.idleUnits = 0
		if e.use != Forward {
			c.last, c.any = e.use, true
		}
	case evActivity:
		if len(m.conns) > 0 {
			m.history = append(m.history, modelEntry{"activity", m.now()})
		}
	case evHoldTouched:
		m.history = append(m.history, modelEntry{"hold", m.now() + e.span})
	case evHoldRemoved:
		m.history = append(m.history, modelEntry{"unhold", 0})
	case evHold, evExtend:
		date := m.now()
		if e.kind == evExtend {
			if e.span <= 0 {
				break
			}
			if m.cfg.Expiry > 0 && !m.running {
				date = m.deadline() + e.span - m.cfg.Expiry
			}
		}
		if old, held := m.hold(); held {
			date = max(date, old)
		}
		m.history = append(m.history, modelEntry{"hold", date})
		m.out = append(m.out, fmt.Sprintf("%v write %v", m.now(), date-m.now()))
	case evJobEnded:
		if !m.running {
			break
		}
		m.running, m.base = false, m.now()
		if len(m.here()) > 0 {
			break
		}
		m.ever = false
		if _, held := m.hold(); !held && !m.cfg.Keep && !e.stay {
			m.why = Done
			m.out = append(m.out, fmt.Sprintf("%v end %v", m.now(), m.why))
		}
	case evResume, evSignal:
		m.why = Resumed
		if e.kind == evSignal {
			m.why = Signalled
		}
		m.out = append(m.out, fmt.Sprintf("%v end %v", m.now(), m.why))
	}
	m.settle()
	m.warn()
}

// someone is there.
func (m *model) someone() {
	if !m.ever && m.cfg.FirstConnect > m.cfg.Expiry {
		m.history = append(m.history, modelEntry{"activity", m.now()})
	}
	m.ever = true
}

// view is what model and core must agree on at every instant. Who was there does
// not matter any more once the session has ended.
type view struct {
	phase    Phase
	here     [3]bool
	deadline time.Duration // 0 for none
}

func (m *model) view() view {
	v := view{phase: m.phase()}
	if v.phase == Ended {
		return v
	}
	for _, id := range m.here() {
		v.here[id] = true
	}
	if end := m.deadline(); end < forever {
		v.deadline = end
	}
	return v
}

func viewOf(s State) view {
	v := view{phase: s.Phase()}
	if v.phase == Ended {
		return v
	}
	for _, id := range s.Status(s.start).Users {
		v.here[id] = true
	}
	if deadline, _ := s.deadline(); deadline != never {
		v.deadline = deadline
	}
	return v
}
