//! System call filters: rules in, a program for the kernel's BPF machine out.
//!
//! For each call the first rule whose conditions hold decides. A program is for one architecture; what comes in through
//! the table of another one is answered by [`Filter::foreign`].

use std::io;
use std::os::fd::OwnedFd;

use crate::syscalls;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is carried out.
    Allow,
    /// It fails with this error number, and nothing else happens.
    Errno(u16),
    /// The process is killed.
    Kill,
    /// Whoever listens to the filter answers in the kernel's place.
    Ask,
}

/// How an argument is compared, as unsigned 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "arithmetic")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// The bits that count. The kernel reads only the low 32 of an `int`, and so must a rule about one.
    pub mask: u64,
    /// How they are compared.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

/// The low 32 bits: all that the kernel sees of an `int` argument.
pub const INT: u64 = 0xffff_ffff;

impl Condition {
    /// Whether the masked argument compares as wanted.
    pub const fn new(argument: u8, mask: u64, compare: Compare, value: u64) -> Self {
        Self { argument, mask, compare, value }
    }
}

/// What becomes of one call when all conditions hold; always, when there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The number of the call.
    pub call: u32,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}

/// A filter for the architecture of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// In order: the first that holds decides.
    pub rules: Vec<Rule>,
    /// For calls without a rule that holds.
    pub otherwise: Action,
    /// For calls above this number.
    pub beyond: Option<(u32, Action)>,
    /// For calls through the table of another architecture or ABI, x32 included.
    pub foreign: Action,
}

/// One instruction, laid out as the kernel's `sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_ALU | BPF_AND | BPF_K`, `BPF_JMP | … | BPF_K`, `BPF_RET | BPF_K`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The name of this architecture in the audit system, which is what filters see.
const OWN_ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };
/// Set in the number of a call that comes in through the x32 ABI, which shares its architecture with x86-64.
const X32: u32 = 0x4000_0000;
/// From here on, numbers are of no table: tracers give one to a call that is not to be made.
const NO_CALLS: u32 = 0x8000_0000;
/// The most that the kernel takes.
const LONGEST: usize = 4096;

impl Filter {
    /// Puts the filter on the calling thread and all that it becomes, for good. A thread without `no_new_privs` needs
    /// the capability to administer.
    pub fn install(&self) -> io::Result<()> {
        let program = self.compile().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(syscalls::install_filter(&program)?)
    }

    /// The same, and returns what hears of each call that is asked about.
    pub(crate) fn install_and_listen(&self) -> io::Result<OwnedFd> {
        let program = self.compile().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(syscalls::install_filter_and_listen(&program)?)
    }

    /// The filter that a command gets that has no network, in a root of its own.
    pub fn of_a_command() -> Self {
        crate::child::command_filter()
    }

    /// The program as other programs take it, such as bubblewrap's `--seccomp`; `None` as for [`Filter::compile`].
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = |one: &Instruction| {
            let (code, value) = (one.code.to_ne_bytes(), one.value.to_ne_bytes());
            [&code[..], &[one.if_true, one.if_false], &value].concat()
        };
        Some(self.compile()?.iter().flat_map(bytes).collect())
    }

    /// The program; `None` when it is longer than the kernel takes.
    pub fn compile(&self) -> Option<Vec<Instruction>> {
        let mut program = vec![
            load(ARCHITECTURE),
            jump_if(JUMP_EQUAL, OWN_ARCHITECTURE, 1, 0),
            give(self.foreign),
            load(NUMBER),
        ];
        if cfg!(target_arch = "x86_64") {
            program.extend([
                jump_if(JUMP_GREATER_OR_EQUAL, X32, 0, 2),
                jump_if(JUMP_GREATER_OR_EQUAL, NO_CALLS, 1, 0),
                give(self.foreign),
            ]);
        }
        if let Some((last, action)) = self.beyond {
            program.extend([jump_if(JUMP_GREATER, last, 0, 1), give(action)]);
        }
        let mut done: Vec<u32> = Vec::new();
        for rule in &self.rules {
            if !done.contains(&rule.call) {
                done.push(rule.call);
                self.group(rule.call, &mut program);
            }
        }
        program.push(give(self.otherwise));
        (program.len() <= LONGEST).then_some(program)
    }

    /// All rules of one call. The number is in the accumulator, and still is when the call is another one.
    fn group(&self, call: u32, program: &mut Vec<Instruction>) {
        let mut body = Vec::new();
        let mut decided = false;
        for rule in self.rules.iter().filter(|rule| rule.call == call) {
            rule.write(&mut body);
            if rule.conditions.is_empty() {
                decided = true;
                break;
            }
        }
        if !decided {
            body.push(give(self.otherwise));
        }
        match u8::try_from(body.len()) {
            Ok(length) => program.push(jump_if(JUMP_EQUAL, call, 0, length)),
            // A conditional jump reaches 255 instructions, the other one any.
            Err(_) => program.extend([
                jump_if(JUMP_EQUAL, call, 1, 0),
                Instruction {
                    code: JUMP,
                    if_true: 0,
                    if_false: 0,
                    value: u32::try_from(body.len()).unwrap_or(u32::MAX),
                },
            ]),
        }
        program.append(&mut body);
    }
}

impl Rule {
    /// `action` for `call`, whatever its arguments are.
    pub fn always(call: libc::c_long, action: Action) -> Self {
        Self::when(call, [], action)
    }

    /// `action` for `call` when all conditions hold.
    pub fn when(call: libc::c_long, conditions: impl IntoIterator<Item = Condition>, action: Action) -> Self {
        // Numbers of calls are small and positive; one that is not names no call.
        let call = u32::try_from(call).unwrap_or(u32::MAX);
        Self { call, conditions: conditions.into_iter().collect(), action }
    }

    /// The conditions, then the action; a condition that fails leads behind it.
    fn write(&self, body: &mut Vec<Instruction>) {
        let mut steps = Vec::new();
        for condition in &self.conditions {
            condition.write(&mut steps);
        }
        let end = steps.len() + 1;
        for (at, step) in steps.iter().enumerate() {
            body.push(step.resolve(at, end));
        }
        body.push(give(self.action));
    }
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy)]
enum To {
    /// To the next step.
    Next,
    /// Over this many steps: the condition holds already.
    Over(u8),
    /// Behind the rule: the condition does not hold.
    Fail,
}

/// An instruction whose jumps are not yet numbers.
#[derive(Debug, Clone, Copy)]
enum Step {
    Plain(Instruction),
    Test { code: u16, value: u32, yes: To, no: To },
}

impl Step {
    fn resolve(self, at: usize, end: usize) -> Instruction {
        let (code, value, yes, no) = match self {
            Self::Plain(instruction) => return instruction,
            Self::Test { code, value, yes, no } => (code, value, yes, no),
        };
        // Jumps count from the next instruction. Six conditions are 30 steps, so they all fit.
        let distance = |to: To| match to {
            To::Next => 0,
            To::Over(steps) => steps,
            To::Fail => u8::try_from(end - at - 1).unwrap_or(u8::MAX),
        };
        jump_if(code, value, distance(yes), distance(no))
    }
}

impl Condition {
    fn write(&self, steps: &mut Vec<Step>) {
        let halves = |number: u64| {
            (u32::try_from(number >> 32).unwrap_or_default(), u32::try_from(number & INT).unwrap_or_default())
        };
        let ((high_mask, low_mask), (high, low)) = (halves(self.mask), halves(self.value));
        let test = |code, value, yes, no| Step::Test { code, value, yes, no };
        let at = ARGUMENTS + 8 * u32::from(self.argument);
        let low_half = [Step::Plain(load(at)), Step::Plain(and(low_mask))];
        // What the low half takes: two steps to load it, one to test it.
        let rest = To::Over(3);
        steps.extend([Step::Plain(load(at + 4)), Step::Plain(and(high_mask))]);
        match self.compare {
            Compare::Equal => {
                steps.push(test(JUMP_EQUAL, high, To::Next, To::Fail));
                steps.extend(low_half);
                steps.push(test(JUMP_EQUAL, low, To::Next, To::Fail));
            }
            Compare::NotEqual => {
                steps.push(test(JUMP_EQUAL, high, To::Next, rest));
                steps.extend(low_half);
                steps.push(test(JUMP_EQUAL, low, To::Fail, To::Next));
            }
            Compare::Less | Compare::LessOrEqual => {
                steps.push(test(JUMP_GREATER, high, To::Fail, To::Next));
                steps.push(test(JUMP_EQUAL, high, To::Next, rest));
                steps.extend(low_half);
                let code = match self.compare {
                    Compare::Less => JUMP_GREATER_OR_EQUAL,
                    _ => JUMP_GREATER,
                };
                steps.push(test(code, low, To::Fail, To::Next));
            }
            Compare::Greater | Compare::GreaterOrEqual => {
                steps.push(test(JUMP_GREATER, high, To::Over(4), To::Next));
                steps.push(test(JUMP_EQUAL, high, To::Next, To::Fail));
                steps.extend(low_half);
                let code = match self.compare {
                    Compare::Greater => JUMP_GREATER,
                    _ => JUMP_GREATER_OR_EQUAL,
                };
                steps.push(test(code, low, To::Next, To::Fail));
            }
        }
    }
}

const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, if_true: 0, if_false: 0, value: offset }
}

const fn and(mask: u32) -> Instruction {
    Instruction { code: AND, if_true: 0, if_false: 0, value: mask }
}

const fn jump_if(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

const fn give(action: Action) -> Instruction {
    let value = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        Action::Ask => libc::SECCOMP_RET_USER_NOTIF,
    };
    Instruction { code: RETURN, if_true: 0, if_false: 0, value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a filter sees of a call.
    #[derive(Debug, Clone, Copy)]
    struct Call {
        number: u32,
        architecture: u32,
        arguments: [u64; 6],
    }

    fn call(number: u32, arguments: [u64; 6]) -> Call {
        Call { number, architecture: OWN_ARCHITECTURE, arguments }
    }

    /// The kernel's machine, as far as programs of this file go.
    fn run(program: &[Instruction], call: &Call) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => call.number,
            ARCHITECTURE => call.architecture,
            _ => {
                let at = offset - ARGUMENTS;
                let argument = call.arguments[usize::try_from(at / 8).expect("small")];
                u32::try_from(if at.is_multiple_of(8) { argument & INT } else { argument >> 32 })
                    .expect("a half")
            }
        };
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            let jump = |yes: bool| usize::from(if yes { if_true } else { if_false });
            at += 1 + match code {
                LOAD => {
                    accumulator = word(value);
                    0
                }
                AND => {
                    accumulator &= value;
                    0
                }
                JUMP => usize::try_from(value).expect("small"),
                JUMP_EQUAL => jump(accumulator == value),
                JUMP_GREATER => jump(accumulator > value),
                JUMP_GREATER_OR_EQUAL => jump(accumulator >= value),
                RETURN => return value,
                other => panic!("no such instruction: {other:#x}"),
            };
        }
    }

    fn is_x32(number: u32) -> bool {
        cfg!(target_arch = "x86_64") && (X32..NO_CALLS).contains(&number)
    }

    /// The same by the definition.
    fn decide(filter: &Filter, call: &Call) -> Action {
        if call.architecture != OWN_ARCHITECTURE || is_x32(call.number) {
            return filter.foreign;
        }
        if let Some((last, action)) = filter.beyond
            && call.number > last
        {
            return action;
        }
        let holds = |condition: &Condition| {
            let found = call.arguments[usize::from(condition.argument)] & condition.mask;
            match condition.compare {
                Compare::Equal => found == condition.value,
                Compare::NotEqual => found != condition.value,
                Compare::Less => found < condition.value,
                Compare::LessOrEqual => found <= condition.value,
                Compare::Greater => found > condition.value,
                Compare::GreaterOrEqual => found >= condition.value,
            }
        };
        let mut rules = filter.rules.iter().filter(|rule| rule.call == call.number);
        rules.find(|rule| rule.conditions.iter().all(holds)).map_or(filter.otherwise, |rule| rule.action)
    }

    fn some_number() -> impl Strategy<Value = u64> {
        // Few values, so that comparisons meet, in both halves.
        prop_oneof![
            (0_u64..4, 0_u64..4).prop_map(|(high, low)| high << 32 | low),
            any::<u64>(),
            Just(u64::MAX),
            Just(INT),
        ]
    }

    fn some_action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Ask),
            (1_u16..200).prop_map(Action::Errno),
            Just(Action::Kill)
        ]
    }

    fn some_condition() -> impl Strategy<Value = Condition> {
        let compare = prop_oneof![
            Just(Compare::Equal),
            Just(Compare::NotEqual),
            Just(Compare::Less),
            Just(Compare::LessOrEqual),
            Just(Compare::Greater),
            Just(Compare::GreaterOrEqual),
        ];
        let mask = prop_oneof![Just(u64::MAX), Just(INT), any::<u64>()];
        (0_u8..6, mask, compare, some_number()).prop_map(|(argument, mask, compare, value)| Condition {
            argument,
            mask,
            compare,
            value,
        })
    }

    fn some_filter() -> impl Strategy<Value = Filter> {
        let rule = (0_u32..8, proptest::collection::vec(some_condition(), 0..7), some_action())
            .prop_map(|(call, conditions, action)| Rule { call, conditions, action });
        let beyond = proptest::option::of((0_u32..10, some_action()));
        (proptest::collection::vec(rule, 0..40), some_action(), beyond, some_action())
            .prop_map(|(rules, otherwise, beyond, foreign)| Filter { rules, otherwise, beyond, foreign })
    }

    proptest! {
        #[test]
        fn a_program_decides_what_its_rules_say(
            filter in some_filter(),
            calls in proptest::collection::vec(
                (0_u32..12, proptest::array::uniform6(some_number())), 1..60
            ),
        ) {
            let program = filter.compile().expect("short enough");
            for (number, arguments) in calls {
                for number in [number, number | X32, number | X32 | NO_CALLS, u32::MAX] {
                    let call = call(number, arguments);
                    prop_assert_eq!(run(&program, &call), give(decide(&filter, &call)).value, "{:?}", call);
                }
            }
        }
    }

    #[test]
    fn calls_of_other_architectures_are_foreign() {
        let filter = Filter { rules: vec![], otherwise: Action::Allow, beyond: None, foreign: Action::Kill };
        let program = filter.compile().expect("short enough");
        for architecture in [0x4000_0003, 0, u32::MAX, 0xC000_00B7 ^ 0xC000_003E ^ OWN_ARCHITECTURE] {
            let foreign = Call { architecture, ..call(1, [0; 6]) };
            assert_eq!(run(&program, &foreign), libc::SECCOMP_RET_KILL_PROCESS, "{architecture:#x}");
        }
        assert_eq!(run(&program, &call(1, [0; 6])), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn other_programs_get_eight_bytes_for_each_instruction() {
        let filter = Filter::of_a_command();
        let (program, bytes) = (filter.compile().expect("short enough"), filter.bytes().expect("the same"));
        assert_eq!(bytes.len(), 8 * program.len());
        assert_eq!(bytes[..8], [0x20, 0, 0, 0, 4, 0, 0, 0], "it begins with the architecture");
        assert!((100..400).contains(&program.len()), "{}", program.len());
    }

    #[test]
    fn a_program_that_the_kernel_would_refuse_is_none() {
        let rules = (0..2100).map(|call| Rule::always(call, Action::Kill)).collect();
        let filter = Filter { rules, otherwise: Action::Allow, beyond: None, foreign: Action::Kill };
        assert!(filter.compile().is_none());
    }
}
