//! The smallest virtual machine that says something: one page of long-mode code that adds two
//! numbers, reloads its page tables, uses its stack and tells the result through a port.

use std::mem::size_of;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// Guest memory: code, page tables, descriptor table and stack, a page or two each.
const MEMORY: usize = 0x10000;
const CODE: u64 = 0x1000;
/// PML4, page directory pointers, page directory: one large page of 2 MiB maps all.
const TABLES: [u64; 3] = [0x2000, 0x3000, 0x4000];
const DESCRIPTORS: u64 = 0x5000;
const STACK: u64 = 0x9000;
const PORT: u16 = 0x3f8;

/// `add rax, rbx; push rax; pop rcx; mov rax, cr3; mov cr3, rax; mov al, cl; out dx, al; hlt`.
const PROGRAM: [u8; 15] =
    [0x48, 0x01, 0xd8, 0x50, 0x59, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x88, 0xc8, 0xee, 0xf4];
const SUMMANDS: (u64, u64) = (2, 3);

/// Runs the program and checks what it says.
///
/// # Errors
/// Why it did not, as a clause.
pub(super) fn run() -> Result<(), String> {
    let refused = |what: &'static str| move |error| format!("KVM cannot {what}: {error}");
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    let machine = kvm.create_vm().map_err(refused("make a virtual machine"))?;
    let mut memory = memory();
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.0.as_mut_ptr() as u64,
    };
    // SAFETY: the memory is page-aligned, as long as said, and outlives the machine, which is
    // dropped first; nothing here looks at it while the guest runs.
    unsafe { machine.set_user_memory_region(region) }.map_err(refused("give it memory"))?;
    let result = enter(&kvm, &machine);
    drop(machine);
    drop(memory);
    result
}

fn enter(kvm: &Kvm, machine: &VmFd) -> Result<(), String> {
    let refused = |what: &'static str| move |error| format!("KVM cannot {what}: {error}");
    let mut cpu = machine.create_vcpu(0).map_err(refused("make a virtual processor"))?;
    let features = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .and_then(|features| cpu.set_cpuid2(&features));
    features.map_err(refused("describe a virtual processor"))?;
    set_registers(&cpu).map_err(refused("set registers"))?;
    let said = match cpu.run().map_err(refused("run a guest"))? {
        VcpuExit::IoOut(PORT, data) => data.to_vec(),
        other => return Err(format!("a guest under KVM went wrong: {other:?}")),
    };
    if said != [(SUMMANDS.0 + SUMMANDS.1) as u8] {
        return Err("a guest under KVM calculated wrongly".into());
    }
    match cpu.run().map_err(refused("run a guest"))? {
        VcpuExit::Hlt => Ok(()),
        other => Err(format!("a guest under KVM went wrong: {other:?}")),
    }
}

/// Guest memory, aligned as KVM wants it.
#[repr(align(4096))]
struct Memory([u8; MEMORY]);

fn memory() -> Box<Memory> {
    let mut memory = Box::new(Memory([0; MEMORY]));
    let mut put = |at: u64, value: u64| {
        let at = at as usize;
        memory.0[at..at + size_of::<u64>()].copy_from_slice(&value.to_le_bytes());
    };
    // Present, writable; the last one a large page.
    put(TABLES[0], TABLES[1] | 0b11);
    put(TABLES[1], TABLES[2] | 0b11);
    put(TABLES[2], 0b1000_0011);
    // A code and a data segment (Intel SDM 3A, 3.4.5).
    put(DESCRIPTORS + 8, 0x00af_9b00_0000_ffff);
    put(DESCRIPTORS + 16, 0x00cf_9300_0000_ffff);
    memory.0[CODE as usize..][..PROGRAM.len()].copy_from_slice(&PROGRAM);
    memory
}

/// 64-bit mode with paging, interrupts off, at the beginning of the program.
fn set_registers(cpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let segment = |selector, type_, l| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1 - l,
        s: 1,
        l,
        g: 1,
        ..kvm_segment::default()
    };
    let mut special = cpu.get_sregs()?;
    let data = segment(16, 3, 0);
    special.cs = segment(8, 11, 1);
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.gdt.base, special.gdt.limit) = (DESCRIPTORS, 23);
    special.cr3 = TABLES[0];
    // PAE; PE, MP, ET, NE, WP, AM, PG; LME, LMA (Intel SDM 3A, 2.5 and 2.2.1).
    (special.cr4, special.cr0, special.efer) = (0x20, 0x8005_0033, 0x500);
    cpu.set_sregs(&special)?;

    let mut registers = cpu.get_regs()?;
    (registers.rip, registers.rsp, registers.rflags) = (CODE, STACK, 2);
    (registers.rax, registers.rbx) = SUMMANDS;
    registers.rdx = PORT.into();
    cpu.set_regs(&registers)
}
