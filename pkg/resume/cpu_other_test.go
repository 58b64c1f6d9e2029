//go:build !unix

package resume

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
