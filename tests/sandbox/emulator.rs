//! Programs of another CPU, run by an emulator of the host that the sandbox alone knows of.

use std::os::unix::fs::PermissionsExt;

use lbx_sandbox::{Backend, Machine, NoEmulation};

use crate::support::{Rootfs, launcher, output, roots, run, skip, try_run};

/// The CPU that this host has not got.
fn other() -> Machine {
    if std::env::consts::ARCH == "x86_64" { Machine::Aarch64 } else { Machine::X86_64 }
}

/// A program for 64-bit Arm that says `hi` and exits with 7: header, one segment, eight instructions, and the word.
fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const START: u64 = 64 + 56;
    const CODE: [u32; 8] = [
        0xd280_0020, // mov x0, #1
        0x1000_00e1, // adr x1, word
        0xd280_0062, // mov x2, #3
        0xd280_0808, // mov x8, #64 (write)
        0xd400_0001, // svc #0
        0xd280_00e0, // mov x0, #7
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 0xb7, 0, 1, 0, 0, 0]);
    file.extend((BASE + START).to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    file.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    let size = START + 4 * CODE.len() as u64 + 3;
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for number in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(CODE.iter().flat_map(|one| one.to_le_bytes()));
    file.extend(b"hi\n");
    file
}

/// The roots of the backend that can give a sandbox an emulator, with a foreign program in each.
fn foreign() -> Vec<Rootfs> {
    if other() != Machine::Aarch64 {
        return Vec::new();
    }
    let roots: Vec<_> = roots().into_iter().filter(|root| root.backend == Backend::Namespaces).collect();
    for root in &roots {
        let path = root.base().join("bin/foreign");
        fs_err::write(&path, program()).expect("a program");
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    }
    roots
}

#[test]
fn a_program_of_another_cpu_runs_where_it_has_an_emulator() {
    for root in foreign() {
        let mut spec = root.shell("");
        spec.argv = vec!["/bin/foreign".to_owned()];
        if fs_err::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, Iterator::count) == 0 {
            // The negative: nothing on this host runs it.
            try_run(&spec).expect_err("it must not run");
        }
        spec.emulator = match launcher().emulator(other(), root.backend) {
            Ok(emulator) => Some(emulator),
            Err(error) => {
                skip(&error.to_string());
                return;
            }
        };
        let ran = run(&spec);
        assert_eq!((ran.code(), ran.stdout.as_str()), (7, "hi\n"), "{ran:?}");
        // What it starts, and what starts it, runs too.
        spec.argv = ["/bin/sh", "-c", "/bin/foreign; echo $?"].map(str::to_owned).to_vec();
        assert_eq!(run(&spec).stdout, "hi\n7\n");
        // Nothing else is another way.
        spec.argv[2] = "id -u; cat /proc/self/uid_map; busybox grep Cap /proc/self/status; ls /proc/sys/fs/binfmt_misc; \
                        cat /proc/1/environ || mount -t binfmt_misc none /tmp || unshare -U true || echo denied"
            .to_owned();
        let with = run(&spec).stdout;
        spec.emulator = None;
        let without = run(&spec).stdout;
        let same = |text: &str| {
            text.lines().filter(|line| !line.contains("1000 ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(same(&with), same(&without));
        assert!(with.ends_with("denied\n") && with.starts_with("1000\n"), "{with}");
        assert_eq!(output(&root, "/bin/foreign > /dev/null 2>&1 || echo not here"), "not here\n");
    }
}

#[test]
fn who_cannot_have_one_is_told_why() {
    for backend in Backend::all().filter(|backend| *backend != Backend::Namespaces) {
        match launcher().emulator(other(), backend) {
            Err(NoEmulation::Backend(found)) => assert_eq!(found, backend),
            Err(NoEmulation::NoProgram(_)) => {
                skip("there is no qemu-user-static");
            }
            found => panic!("{found:?}"),
        }
    }
    let nowhere = launcher().with_path(["/nonexistent".into()]);
    let error = nowhere.emulator(other(), Backend::Namespaces).expect_err("there is none").to_string();
    assert_eq!(error, "there is no qemu-aarch64-static on the PATH");
}
