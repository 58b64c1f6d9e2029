package winproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Job is a process and all that it has started since, except those that were
// started with CREATE_BREAKAWAY_FROM_JOB to outlive it. Its methods may not be
// called concurrently.
type Job struct{ handle windows.Handle }

// Terminate ends everybody in the job, with the exit status 1.
func (j *Job) Terminate() {
	if j.handle != 0 {
		_ = windows.TerminateJobObject(j.handle, 1)
	}
}

// Close ends everybody who is left in the job. If this process dies, the
// system does the same.
func (j *Job) Close() {
	if j.handle != 0 {
		_ = windows.CloseHandle(j.handle)
		j.handle = 0
	}
}

func newJob() (*Job, error) {
	handle, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("no job object: %w", err)
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE |
		windows.JOB_OBJECT_LIMIT_BREAKAWAY_OK
	if _, err := windows.SetInformationJobObject(handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		_ = windows.CloseHandle(handle)
		return nil, fmt.Errorf("no job object: %w", err)
	}
	return &Job{handle: handle}, nil
}

// Start starts a command in a job of its own: nothing that it starts can get
// out unseen, as it could if it ran before it is in the job. Of cmd it takes
// Path, which is absolute, Args or else SysProcAttr.CmdLine, Dir and Env; it
// sets Process, so that cmd.Wait works. With a console the command runs on it,
// and without one its three streams must be set, to pipes of package os.
func Start(cmd *exec.Cmd, console *Console) (*Job, error) {
	job, err := newJob()
	if err != nil {
		return nil, err
	}
	created, err := create(cmd, console)
	if err != nil {
		job.Close()
		return nil, err
	}
	defer windows.CloseHandle(created.Thread)
	defer windows.CloseHandle(created.Process)
	if err = windows.AssignProcessToJobObject(job.handle, created.Process); err == nil {
		// The handle that is open here keeps the number from another one.
		cmd.Process, err = os.FindProcess(int(created.ProcessId))
	}
	if err == nil {
		_, err = windows.ResumeThread(created.Thread)
	}
	if err != nil {
		_ = windows.TerminateProcess(created.Process, 1)
		job.Close()
		if cmd.Process != nil {
			_ = cmd.Process.Release()
		}
		return nil, fmt.Errorf("cannot put the process into its job object: %w", err)
	}
	return job, nil
}

// create makes the process; its first thread waits to be resumed.
func create(cmd *exec.Cmd, console *Console) (created windows.ProcessInformation, err error) {
	line := windows.ComposeCommandLine(cmd.Args)
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.CmdLine != "" {
		line = cmd.SysProcAttr.CmdLine
	}
	path, err := windows.UTF16PtrFromString(cmd.Path)
	if err != nil {
		return created, err
	}
	arguments, err := windows.UTF16PtrFromString(line)
	if err != nil {
		return created, err
	}
	var dir *uint16
	if cmd.Dir != "" {
		if dir, err = windows.UTF16PtrFromString(cmd.Dir); err != nil {
			return created, err
		}
	}
	env, err := environmentBlock(cmd.Environ())
	if err != nil {
		return created, err
	}
	attributes, err := windows.NewProcThreadAttributeList(1)
	if err != nil {
		return created, err
	}
	defer attributes.Delete()
	startup := windows.StartupInfoEx{ProcThreadAttributeList: attributes.List()}
	startup.Cb = uint32(unsafe.Sizeof(startup))
	// With a console too: else a program would take the streams of the agent,
	// which in a job are a log, and no console.
	startup.Flags = windows.STARTF_USESTDHANDLES
	flags := uint32(windows.CREATE_SUSPENDED | windows.CREATE_UNICODE_ENVIRONMENT | windows.EXTENDED_STARTUPINFO_PRESENT)
	var streams []windows.Handle
	if console != nil {
		err = console.attach(attributes)
	} else {
		// A console that nobody sees, so that it has none in common with the
		// agent, whose ctrl-C is not its own.
		flags |= windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW
		if streams, err = handles(cmd.Stdin, cmd.Stdout, cmd.Stderr); err == nil {
			startup.StdInput, startup.StdOutput, startup.StdErr = streams[0], streams[1], streams[2]
			// Nothing else is inherited, whatever other goroutines have open.
			err = attributes.Update(windows.PROC_THREAD_ATTRIBUTE_HANDLE_LIST, unsafe.Pointer(&streams[0]),
				uintptr(len(streams))*unsafe.Sizeof(streams[0]))
		}
	}
	if err != nil {
		return created, err
	}
	err = windows.CreateProcess(path, arguments, nil, nil, console == nil, flags, &env[0], dir,
		&startup.StartupInfo, &created)
	runtime.KeepAlive(streams)
	runtime.KeepAlive(cmd)
	if err != nil {
		return created, fmt.Errorf("cannot run %s: %w", cmd.Path, err)
	}
	return created, nil
}

// attach makes a process that is created with the attributes run on the
// console.
func (c *Console) attach(attributes *windows.ProcThreadAttributeListContainer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	handle, ok := c.device.(pseudoConsole)
	if !ok {
		return errors.New("the pseudo console has ended")
	}
	// The attribute is the handle itself, not where it is kept.
	return attributes.Update(windows.PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE,
		*(*unsafe.Pointer)(unsafe.Pointer(&handle)), unsafe.Sizeof(handle))
}

// handles returns those of the streams. Pipes of package os can be inherited.
func handles(streams ...any) ([]windows.Handle, error) {
	list := make([]windows.Handle, 0, len(streams))
	for _, stream := range streams {
		file, ok := stream.(*os.File)
		if !ok || file == nil {
			return nil, errors.New("a stream of the process is no pipe")
		}
		list = append(list, windows.Handle(file.Fd()))
	}
	return list, nil
}

// environmentBlock joins variables as CreateProcess wants them.
func environmentBlock(env []string) ([]uint16, error) {
	var block []uint16
	for _, entry := range env {
		text, err := windows.UTF16FromString(entry) // ends in a zero
		if err != nil {
			return nil, err
		}
		block = append(block, text...)
	}
	if len(block) == 0 {
		block = append(block, 0)
	}
	return append(block, 0), nil
}
