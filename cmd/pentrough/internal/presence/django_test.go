package presence

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

const djangoExample = "../../../../docs/examples/django"

// The whole loop of the original system, as a user of the back office goes round it: a page, HTTP,
// RabbitMQ, the host, the device, its answer, the result, the database, the page. The host, the
// broker and the database are killed and started again in turn, and the page ends up true.
func TestDjango(t *testing.T) {
	t.Parallel()
	d := newDjangoRig(t)
	enter := "from fleet.models import Device"
	for i, name := range []string{"Door", "Gate", "Lift", "Lost"} {
		enter += fmt.Sprintf("; Device.objects.create(address='%s', name='%s', place='Floor %d')", djangoAddress(i), name, i)
	}
	d.manage("shell", "-c", enter)
	d.start()
	for i := range 3 {
		d.come(i)
	}
	d.come(9) // nobody entered it
	d.pageSays("three devices are there", func(page string) bool {
		return strings.Contains(page, "Fleet: 3 of 4 online") && strings.Contains(page, "Lift, Floor 2") && !strings.Contains(page, djangoAddress(9))
	})
	d.leave(2)
	d.pageSays("one has gone", func(page string) bool {
		return strings.Contains(page, "2 of 4 online") && strings.Contains(page, "offline (client_closed)")
	})
	commands := []djangoCommand{d.send(0, "status"), d.send(1, "open")}
	for _, c := range commands {
		d.ends(c, "answered", "OK "+c.cmd)
	}
	d.ends(d.send(3, "open"), "offline", "")
	d.pageSays("the last results", func(page string) bool {
		return strings.Count(page, ">answered</a>") == 2 && strings.Count(page, ">offline</a>") == 1
	})

	// The host dies with a command at its device; the next one isn't taken, which the page says
	// with a button to try again. Then a device connects.
	begun := d.send(0, slow)
	await.That(t, "the device has read the command", func() (any, bool) {
		n := d.read(slow)
		return n, n == 1
	})
	d.host.kill()
	form := d.refused(1, "during the host", "The host doesn&#x27;t answer: ")
	d.come(2)
	d.host.start()
	commands = append(commands, d.again(form, "during the host"))
	d.ends(begun, "(answered|unknown)", "")
	if n := d.read(slow); n > 2 {
		t.Errorf("the device has read what its host died with %d times", n)
	}
	d.pageSays("the one has come", func(page string) bool { return strings.Contains(page, "3 of 4 online") })

	// The broker dies, and a device goes.
	d.node.Kill(t)
	form = d.refused(0, "during the broker", "The host")
	d.leave(2)
	d.node.Start(t)
	commands = append(commands, d.again(form, "during the broker"))
	d.pageSays("the one has gone", func(page string) bool { return strings.Contains(page, "2 of 4 online") })

	// The database dies with a command on its way; one device comes, and one goes.
	commands = append(commands, d.send(0, "before the database"))
	d.database.Kill(t)
	if page, status := d.get("/"); status != http.StatusServiceUnavailable || !strings.Contains(page, "The database doesn&#x27;t answer.") {
		t.Errorf("with the database away the page says %d:\n%s", status, page)
	}
	d.come(2)
	d.leave(1)
	d.database.Start(t)
	d.pageSays("what was during the database", func(page string) bool {
		return strings.Contains(page, "2 of 4 online") && strings.Contains(page, "Lift")
	})
	commands = append(commands, d.send(2, "after the database"))
	for _, c := range commands {
		d.ends(c, "answered", "OK "+c.cmd)
		if n := d.read(c.cmd); n != 1 {
			t.Errorf("%q was read %d times", c.cmd, n)
		}
	}
	d.pageSays("what is true in the end", func(page string) bool {
		state := regexp.MustCompile(`(?s)id="device-([\d.]+)".*?class="(on|off)"`).FindAllStringSubmatch(page, -1)
		got := ""
		for _, s := range state {
			got += s[1] + " " + s[2] + ", "
		}
		return got == fmt.Sprintf("%s on, %s off, %s on, %s off, ", djangoAddress(0), djangoAddress(1), djangoAddress(2), djangoAddress(3))
	})

	// A result whose command came from elsewhere has a page, too; what nobody knows has none.
	d.manage("shell", "-c", "from fleet.models import *; print(Press.objects.filter(cmd='open').delete())")
	d.ends(commands[1], "answered", "OK open")
	if page, status := d.get(commands[1].path + "x"); status != http.StatusNotFound || !strings.Contains(page, "There is no command") {
		t.Errorf("for an unknown command the page says %d:\n%s", status, page)
	}
	own := d.manage("shell", "-c", "from fleet.models import *; print([(d.name, d.place) for d in Device.objects.all()], Press.objects.filter(cmd='status').count(), Result.objects.filter(state='answered').count() >= 5)")
	if want := "[('Door', 'Floor 0'), ('Gate', 'Floor 1'), ('Lift', 'Floor 2'), ('Lost', 'Floor 3')] 1 True"; !strings.Contains(own, want) {
		t.Errorf("Django's own: %s, want %s", own, want)
	}
}

// What the page shows of the files is in them.
func TestDjangoPage(t *testing.T) {
	page := fileText(t, filepath.Join(djangoExample, "README.md"))
	for _, quoted := range regexp.MustCompile("(?s)<!-- (\\S+) -->\n```\\w*\n(.*?)```").FindAllStringSubmatch(page, -1) {
		if text := fileText(t, filepath.Join(djangoExample, quoted[1])); !strings.Contains(text, strings.TrimSpace(quoted[2])) {
			t.Errorf("what the page shows of %s isn't in it:\n%s", quoted[1], quoted[2])
		}
	}
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func djangoAddress(i int) string { return fmt.Sprintf("127.5.0.%d", i+1) }

// djangoRig is a back office with all that it needs.
type djangoRig struct {
	t        *testing.T
	env      []string
	folder   string
	site     string
	node     *testenv.Node
	database *testenv.Postgres
	host     *presenceHost
	client   *http.Client
	devices  map[int]*djangoDevice
	port     string // of devices

	mu    sync.Mutex
	lines map[string]int // how often devices have read each
}

// slow is a command that devices need a moment for.
const slow = "slow"

func newDjangoRig(t *testing.T) *djangoRig {
	d := &djangoRig{t: t, folder: t.TempDir(), node: testenv.NewNode(t), database: testenv.NewPostgres(t), devices: map[int]*djangoDevice{}, port: testenv.Port(t), lines: map[string]int{}}
	web, page := testenv.Port(t), testenv.Port(t)
	d.site = "http://127.0.0.1:" + page
	d.env = []string{
		"AMQP_URL=" + d.node.URL(), "DATABASE_URL=" + d.database.URL, "DEVICES=127.0.0.1:" + d.port, "WEB=127.0.0.1:" + web, "ADMIN=127.0.0.1:" + testenv.Port(t), "PENTROUGH_TOKEN=secret",
		"PENTROUGH_URL=http://127.0.0.1:" + web + "/commands", "STORE=" + filepath.Join(d.folder, "pentrough.db"), "PYTHONDONTWRITEBYTECODE=1",
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	d.client = &http.Client{Jar: jar, Timeout: 30 * time.Second}
	d.manage("migrate", "--verbosity", "0")
	file, err := filepath.Abs(filepath.Join(djangoExample, "pentrough.toml"))
	if err != nil {
		t.Fatal(err)
	}
	d.host = &presenceHost{t: t, folder: d.folder, name: "host", file: file, env: d.env}
	t.Cleanup(func() {
		for i := range d.devices {
			d.leave(i)
		}
	})
	return d
}

// start starts the host and the site.
func (d *djangoRig) start() {
	d.host.start()
	testenv.Launch(d.t, d.folder, "django.log", d.env, "/usr/bin/python3", filepath.Join(djangoExample, "manage.py"), "runserver", "--noreload", strings.TrimPrefix(d.site, "http://"))
}

// manage runs a command of Django and returns what it prints.
func (d *djangoRig) manage(args ...string) string {
	d.t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{filepath.Join(djangoExample, "manage.py")}, args...)...)
	cmd.Env = append(os.Environ(), d.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("manage.py %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// get returns a page and its status.
func (d *djangoRig) get(path string) (string, int) {
	resp, err := d.client.Get(d.site + path)
	if err != nil {
		return err.Error(), 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error(), 0
	}
	return string(body), resp.StatusCode
}

func (d *djangoRig) pageSays(what string, holds func(page string) bool) {
	d.t.Helper()
	await.That(d.t, "the page says: "+what, func() (any, bool) {
		page, status := d.get("/")
		return page, status == http.StatusOK && holds(page)
	})
}

// djangoCommand is one that the page took.
type djangoCommand struct{ path, cmd string }

// djangoForm is one that a page shows.
type djangoForm struct{ action, token, id string }

var djangoForms = regexp.MustCompile(`(?s)action="([^"]+)">.*?name="csrfmiddlewaretoken" value="(\w+)">.*?name="id" value="([\w-]+)"`)

// form finds the first form on a page that leads to a place.
func (d *djangoRig) form(page, action string) djangoForm {
	for _, found := range djangoForms.FindAllStringSubmatch(page, -1) {
		if found[1] == action {
			return djangoForm{found[1], found[2], found[3]}
		}
	}
	d.t.Helper()
	d.t.Fatalf("there is no form for %s on\n%s", action, page)
	return djangoForm{}
}

// post presses the button of a form; where it leads, or what the page says instead.
func (d *djangoRig) post(form djangoForm, cmd string) (path, said string) {
	resp, err := d.client.PostForm(d.site+form.action, url.Values{"cmd": {cmd}, "id": {form.id}, "csrfmiddlewaretoken": {form.token}})
	if err != nil {
		return "", err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err.Error()
	}
	if resp.StatusCode != http.StatusOK {
		return "", string(body)
	}
	return resp.Request.URL.Path, string(body)
}

// press sends a command from the page of devices.
func (d *djangoRig) press(i int, cmd string) (path, said string) {
	d.t.Helper()
	page, _ := d.get("/")
	return d.post(d.form(page, "/device/"+djangoAddress(i)+"/command"), cmd)
}

func (d *djangoRig) send(i int, cmd string) djangoCommand {
	d.t.Helper()
	path, said := d.press(i, cmd)
	if path == "" {
		d.t.Fatalf("the command %q wasn't taken:\n%s", cmd, said)
	}
	return djangoCommand{path, cmd}
}

// refused sends a command that isn't taken; the form by which the page offers to send it again.
func (d *djangoRig) refused(i int, cmd, why string) djangoForm {
	d.t.Helper()
	path, said := d.press(i, cmd)
	if path != "" || !strings.Contains(said, why) {
		d.t.Errorf("the command %q was to be refused with %q: %s\n%s", cmd, why, path, said)
	}
	return d.form(said, "/device/"+djangoAddress(i)+"/command")
}

// again presses the button of a page of trouble until the command is taken, and twice then.
func (d *djangoRig) again(form djangoForm, cmd string) djangoCommand {
	d.t.Helper()
	path := ""
	await.That(d.t, "the command is taken: "+cmd, func() (any, bool) {
		var said string
		path, said = d.post(form, cmd)
		return said, path != ""
	})
	if second, said := d.post(form, cmd); second != path {
		d.t.Errorf("pressing again leads to %q:\n%s", second, said)
	}
	return djangoCommand{path, cmd}
}

// read is how often devices have read a command.
func (d *djangoRig) read(cmd string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lines[cmd]
}

// ends waits for a command's result on its page.
func (d *djangoRig) ends(c djangoCommand, state, reply string) {
	d.t.Helper()
	page := ""
	await.That(d.t, "the page has the result of "+c.cmd, func() (any, bool) {
		var status int
		page, status = d.get(c.path)
		return page, status == http.StatusOK && !strings.Contains(page, `id="waiting"`)
	})
	if !regexp.MustCompile(`id="state">`+state+"<").MatchString(page) || reply != "" && !strings.Contains(page, "<code>"+reply+"</code>") {
		d.t.Errorf("the result of %q, wanted %s %q:\n%s", c.cmd, state, reply, page)
	}
}

// djangoDevice answers each line, and comes back when its connection ends.
type djangoDevice struct {
	end  context.CancelFunc
	work sync.WaitGroup
}

func (d *djangoRig) come(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	device := &djangoDevice{end: cancel}
	d.devices[i] = device
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(djangoAddress(i))}, Timeout: 5 * time.Second}
	device.work.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			conn, err := dialer.DialContext(ctx, "tcp", "127.0.0.1:"+d.port)
			if err != nil {
				continue
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				cmd := strings.TrimSpace(lines.Text())
				d.mu.Lock()
				d.lines[cmd]++
				d.mu.Unlock()
				if cmd == slow {
					time.Sleep(300 * time.Millisecond)
				}
				if _, err := fmt.Fprintf(conn, "OK %s\r\n", cmd); err != nil {
					break
				}
			}
			stop()
			conn.Close()
		}
	})
}

func (d *djangoRig) leave(i int) {
	d.devices[i].end()
	d.devices[i].work.Wait()
	delete(d.devices, i)
}
