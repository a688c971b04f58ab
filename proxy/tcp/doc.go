// Package tcp makes TCP connections cheap for a gateway whose requests come
// one by one. It serves both of its sides: the listener's connections and
// those to instances. Two things differ from net.TCPConn; what callers see
// does not.
//
//   - Reads and small writes are system calls that the scheduler is not told
//     of. Sockets never block, so they are over in microseconds. Told, the
//     runtime wakes its monitor thread with the first call after each pause,
//     which then wakes by itself every 20 µs (sysmon in runtime/proc.go): of a
//     gateway at some thousand requests a second that was half of the
//     processor time.
//   - A deadline for reading reaches the runtime's timers only once somebody
//     waits for bytes, and only if the timer that is set would come too late
//     for it. net/http moves it seven times in a request and waits once.
//
// Elsewhere than on Linux, and under the race detector, which knows the
// syscall package's calls only, system calls are the usual ones.
package tcp
