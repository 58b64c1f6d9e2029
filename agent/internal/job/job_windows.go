package job

import "os"

// killedBy returns 0: no process is ended by a signal on Windows.
func killedBy(*os.ProcessState) (number int, name string) { return 0, "" }
