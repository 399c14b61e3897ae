package apache

import "syscall"

// attributes keeps a node from outliving us, and from hearing the Ctrl-C that a
// terminal sends to its whole foreground group: we end it ourselves then.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
