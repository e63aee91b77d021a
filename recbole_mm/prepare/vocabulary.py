"""Words of the synthetic shop: topics, brands and the words that say nothing about taste."""

from __future__ import annotations

# One line per topic: the department, then the wordings a title may use.
_TOPIC_LINES = """
Protection: bumper case, slim case, hard shell case, silicone case, clear back case
Protection: wallet cover, flip cover, leather folio cover, card slot cover, book cover
Protection: screen protector, tempered glass screen, privacy screen film, screen guard, screen foil
Carrying: waterproof pouch, dry bag pouch, underwater pouch, swimming pouch, floating dry bag
Carrying: running armband, sports armband, jogging arm strap, gym armband, fitness arm strap
Carrying: finger ring grip, neck lanyard, wrist strap, hand grip loop, finger loop grip
Charging: wall charger, mains power adapter, travel wall plug, wall charging plug, mains charger
Charging: car charger, cigarette lighter charger, vehicle charger, truck charger, 12V car adapter
Charging: wireless charging pad, Qi charging mat, induction charger, wireless dock, Qi pad
Power: USB cable, data sync cable, braided cord, extension cable, USB lead
Power: power bank, portable power pack, external power bank, solar power bank, backup power pack
Power: replacement battery, spare battery, lithium battery, battery door kit, internal battery
Listening: wired earphones, stereo earphones, 3.5mm earphones, earphones with remote, flat wire earphones
Listening: wireless earbuds, true wireless buds, bluetooth earbuds, sport earbuds, earbuds case set
Listening: over-ear headphones, studio headphones, noise cancelling headphones, folding headphones, DJ headphones
Sound: handsfree headset, mono bluetooth headset, call headset microphone, trucker headset, office headset
Sound: bluetooth speaker, portable loudspeaker, shower speaker, bass speaker, mini loudspeaker
Sound: aux adapter, headphone jack adapter, audio splitter, FM transmitter, audio aux lead
Mounts: dashboard mount, windshield mount, air vent mount, magnetic car mount, car cradle
Mounts: bicycle holder, handlebar holder, motorcycle holder, bike bracket, bike handlebar clamp
Mounts: desk stand, tabletop stand, bedside stand, folding table stand, kitchen stand
Photo: selfie stick, camera tripod, monopod stick, tripod with remote shutter, selfie tripod
Photo: clip-on lens, macro lens, fisheye lens, telephoto zoom lens, wide angle lens
Photo: memory card, microSD card, flash storage card, card reader, 64GB memory card
""".strip().splitlines()  # noqa: E501

DEPARTMENTS: tuple[str, ...] = tuple(line.split(": ")[0] for line in _TOPIC_LINES)
WORDINGS: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split(": ")[1].split(", ")) for line in _TOPIC_LINES
)

BRANDS: tuple[str, ...] = tuple(
    "Norvik Caldera Lumetra Ostwind Pinecrest Quanto Ravello Sablon Tindra Umbrel Velora Westmark "
    "Xandia Yarrow Zephra Altona Brisco Corvia Dunmore Elara Fenwick Galdor Hestia Ivaro".split()
)
MANNERS: tuple[str, ...] = tuple(
    "premium compact lightweight durable universal classic original sturdy foldable handy "
    "professional upgraded".split()
)
DEVICES: tuple[str, ...] = tuple(
    "iPhone Galaxy Pixel Xperia smartphone tablet Android Nokia Motorola Huawei".split()
)
COLOURS: tuple[str, ...] = tuple(
    "black white blue red silver green pink grey gold purple".split()
)
