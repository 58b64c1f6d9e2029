package container

import "testing"

// A /proc that hides a process, or is not there, ends nobody.
func TestOwnerIsHidden(t *testing.T) {
	me := self()
	was := procfs
	defer func() { procfs = was }()
	procfs = t.TempDir()
	if me.gone(me) {
		t.Error("a process that /proc hides is taken for gone")
	}
	other := me
	other.pid = "4194399" // more than there can be
	if !other.gone(me) {
		t.Error("a process that is not there is taken for one that is hidden")
	}
	if blind := self(); blind.gone(blind) || (owner{machine: blind.machine, pid: other.pid}).gone(blind) {
		t.Error("something is certain where nothing can be seen")
	}
}
