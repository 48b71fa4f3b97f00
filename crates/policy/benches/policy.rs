//! How long it takes to read a policy of 1000 rules, to compile it, and to decide by it:
//! `cargo bench -p casemate-policy`. Figures are medians; docs/design/0006 has one run.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use casemate_policy::{Compartment, Decision, Engine, Memory, Policy, PolicyFile, Request, System};

/// Rules of the policy.
const RULES: usize = 1000;

/// Calls of one kind that are decided for one sample.
const BATCH: usize = 1000;

fn main() {
    let system = system(40);
    println!("{:<44} {:>12} {:>12}", "", "median", "99 %");
    for (name, services) in [("50 services", 50), ("one service", 1)] {
        let text = mixed(services);
        let parse = samples(200, || policy(&text));
        show(&format!("{name}: read {RULES} rules"), &parse, 1);
        let read = policy(&text);
        assert!(!read.has_errors() && read.rules.len() == RULES);
        let compile = samples(100, || Engine::new(read.clone(), system.clone()));
        show(&format!("{name}: compile them for 40 compartments"), &compile, 1);
        let engine = Engine::new(read, system.clone());
        let words = requests(400, services);
        let all: Vec<Request<'_>> = words
            .iter()
            .map(|(service, argument, source, target)| {
                Request::new(service, argument, source, target).expect("a request")
            })
            .collect();
        let (mut any, mut asked, mut unmatched) = (Vec::new(), Vec::new(), Vec::new());
        for request in &all {
            let took = samples(1, || {
                (0..BATCH).for_each(|_| {
                    black_box(engine.decide(black_box(request)));
                })
            });
            match engine.decide(request) {
                Decision::Ask { .. } => asked.extend(&took),
                Decision::Deny { rule: None, .. } => unmatched.extend(&took),
                _ => {}
            }
            any.extend(took);
        }
        show(&format!("{name}: decide, any of 400 calls"), &any, BATCH);
        show(&format!("{name}: decide, no rule matches"), &unmatched, BATCH);
        show(&format!("{name}: decide, a question with its choices"), &asked, BATCH);
    }
    let text = (0..100).map(|_| mixed(50)).collect::<String>();
    show("read 100 000 rules", &samples(5, || policy(&text)), 1);
    let big = policy(&text);
    show("compile them", &samples(5, || Engine::new(big.clone(), system.clone())), 1);
}

/// A policy whose rules hardly ever match, so that most of them have to be passed over.
fn mixed(services: usize) -> String {
    let mut text = String::new();
    let mut number = 12345_usize;
    let mut next = |below: usize| {
        number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (number >> 33) % below
    };
    for rule in 0..RULES {
        let argument = ["*", "+", "+key", "+a.b"][next(4)];
        let source = match next(4) {
            0 => format!("@tag:t{}", next(30)),
            1 => format!("@dispvm:c{}", next(40)),
            _ => format!("c{}", next(60)),
        };
        let target = match next(5) {
            0 => format!("@tag:t{}", next(30)),
            1 => format!("@dispvm:c{}", next(40)),
            2 if rule > RULES / 2 => "@anyvm".to_owned(),
            _ => format!("c{}", next(60)),
        };
        let action =
            ["allow", "deny notify=no", "ask default_target=c1", "allow target=c2"][next(4)];
        text +=
            &format!("service.Number{} {argument} {source} {target} {action}\n", next(services));
    }
    text
}

fn requests(count: usize, services: usize) -> Vec<(String, &'static str, String, String)> {
    (0..count)
        .map(|n| {
            let argument = ["+", "+key", "+a.b", "+other"][n % 4];
            let target = match n % 5 {
                0 => "@default".to_owned(),
                1 => "@dispvm".to_owned(),
                _ => format!("c{}", n * 7 % 40),
            };
            (
                format!("service.Number{}", n % services),
                argument,
                format!("c{}", n * 3 % 40),
                target,
            )
        })
        .collect()
}

fn system(count: usize) -> System {
    System::new((0..count).map(|n| Compartment {
        name: format!("c{n}"),
        tags: (0..3).map(|t| format!("t{}", (n + t * 7) % 30)).collect(),
        compartment_type: "AppVM".into(),
        running: n % 2 == 0,
        disposable_template: n % 8 == 0,
        default_disposable: Some("c8".into()),
        ..Compartment::default()
    }))
}

fn policy(text: &str) -> Policy {
    let file = PolicyFile { path: "/p/50-bench.policy".into(), text: Ok(text.into()) };
    Policy::load(vec![file], &Memory::default())
}

fn samples<T>(count: usize, mut run: impl FnMut() -> T) -> Vec<Duration> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed()
        })
        .collect()
}

fn show(name: &str, samples: &[Duration], each: usize) {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize);
    let text = |time: Option<&Duration>| match time {
        Some(time) => format!("{:.3} µs", time.as_secs_f64() * 1e6 / each as f64),
        None => "none".into(),
    };
    println!("{name:<44} {:>12} {:>12}", text(at(0.5)), text(at(0.99)));
}
